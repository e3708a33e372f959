//! What the other end of a new link may say: its hello, then its proof.
//!
//! The input is taken for each of the two, by a node of each kind. What decodes encodes again and means the same; a peer
//! that is refused is refused with a code; and a proof covers every byte of both hellos, and the side.

use qunlong_core::wire::{self, HandshakeError, Hello, Side};
use qunlong_core::{ClusterId, NodeId};

/// Returns whether it was a hello or a proof.
pub(crate) fn check(bytes: &[u8]) -> bool {
    // Not `||`: both are looked at.
    hello(bytes) | proof(bytes)
}

fn hello(bytes: &[u8]) -> bool {
    let newcomer = Hello { public_key: [1; 32], cluster: None, nonce: [9; 32] };
    let member = Hello { cluster: Some(ClusterId([5; 16])), ..newcomer.clone() };
    let mut understood = false;
    for mine in [newcomer, member] {
        let my_bytes = wire::encode_hello(&mine);
        match wire::check_hello(&mine, bytes) {
            Ok(theirs) => {
                understood = true;
                assert_ne!(NodeId::of_public_key(&theirs.public_key), NodeId::of_public_key(&mine.public_key));
                assert!(theirs.cluster.is_none() || mine.cluster.is_none() || theirs.cluster == mine.cluster);
                let again = wire::encode_hello(&theirs);
                assert_eq!(wire::check_hello(&mine, &again).as_ref(), Ok(&theirs), "a hello means the same again");
                assert!(wire::check_hello(&theirs, &my_bytes).is_ok(), "both sides agree on whether they belong");
            }
            Err(error) => {
                understood |= !matches!(error, HandshakeError::Decode(_));
                assert!(!error.code().is_empty() && !error.to_string().is_empty());
            }
        }
        let (dialer, listener) = (Side::Dialer, Side::Listener);
        let signed = wire::transcript(dialer, &my_bytes, bytes);
        assert_ne!(signed, wire::transcript(listener, &my_bytes, bytes), "a proof fits one side");
        if my_bytes != bytes {
            assert_ne!(signed, wire::transcript(dialer, bytes, &my_bytes), "a proof fits one connection");
        }
    }
    understood
}

fn proof(bytes: &[u8]) -> bool {
    match wire::decode_proof(bytes) {
        Ok(proof) => {
            let again = wire::encode_proof(&proof);
            assert_eq!(wire::decode_proof(&again), Ok(proof), "a proof means the same again");
            true
        }
        Err(error) => {
            assert_eq!(error.code(), "BAD_HANDSHAKE");
            false
        }
    }
}
