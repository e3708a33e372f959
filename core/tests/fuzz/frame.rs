//! What a link or a dashboard may be sent: frames, the messages inside, batches of events.
//!
//! The input is taken for each of the three. Whatever decodes encodes again, and what comes out of that means the same.
//! A frame has one encoding only, so it must come out byte for byte.

use qunlong_core::limits;
use qunlong_core::wire::{self, DecodeError, FrameWriter, Packet};
use qunlong_core::{ClusterId, NodeId};

/// The cluster of the corpus's frames.
pub(crate) const CLUSTER: ClusterId = ClusterId([5; 16]);

/// Returns whether a message or an event was in it.
pub(crate) fn check(bytes: &[u8]) -> bool {
    let in_frame = frame(bytes);
    let alone = message(NodeId::small(1), bytes);
    let told = events(bytes);
    in_frame || alone || told
}

fn frame(bytes: &[u8]) -> bool {
    let packets = match wire::read_frame(bytes, None) {
        Ok(packets) => packets,
        Err(error) => {
            assert!(!matches!(error, DecodeError::WrongCluster { .. }), "a node without a cluster takes any frame");
            return false;
        }
    };
    let theirs = ClusterId(bytes[1..17].try_into().expect("a frame has a whole head"));
    let mut writer = FrameWriter::new(Some(theirs));
    for &packet in &packets {
        assert!(writer.fits(packet.body.len()), "what came in one frame fits into one");
        writer.push(packet);
    }
    assert_eq!(writer.finish(), bytes, "a frame has one encoding");
    let belongs = theirs == CLUSTER || theirs == ClusterId([0; 16]);
    let mine = wire::read_frame(bytes, Some(CLUSTER));
    assert_eq!(
        mine,
        if belongs { Ok(packets.clone()) } else { Err(DecodeError::WrongCluster { mine: CLUSTER, theirs }) }
    );
    // Not `any`: all of them are looked at.
    packets.iter().filter(|packet| message(packet.from, packet.body)).count() > 0
}

fn message(from: NodeId, body: &[u8]) -> bool {
    let Ok(envelope) = wire::decode_message(from, body) else { return false };
    let Ok(again) = wire::encode_message(&envelope) else {
        assert!(body.len() > limits::MESSAGE_BYTES, "a message that came in can go out");
        return true;
    };
    assert!(again.len() <= body.len(), "no encoding is shorter than ours");
    assert_eq!(wire::decode_message(from, &again).as_ref(), Ok(&envelope), "a message means the same again");
    let mut writer = FrameWriter::new(None);
    writer.push(Packet { to: NodeId::small(2), from, hops: 0, body: &again });
    assert!(!writer.is_empty(), "a frame takes any message");
    true
}

fn events(bytes: &[u8]) -> bool {
    let Ok(events) = wire::decode_events(bytes) else { return false };
    let again = wire::encode_events(&events);
    assert_eq!(wire::decode_events(&again).as_ref(), Ok(&events), "events mean the same again");
    for event in &events {
        assert!(!event.kind.to_string().is_empty(), "an event can be told");
    }
    !events.is_empty()
}
