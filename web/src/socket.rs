//! A tab's link to a server: the browser's WebSocket as a stream of messages, and the handshake on it.

use futures::channel::mpsc;
use futures::{FutureExt, StreamExt, select_biased};
use js_sys::{ArrayBuffer, Uint8Array};
use qunlong_core::wire::{Hello, Proof, Side, check_hello, decode_proof, encode_hello, encode_proof, transcript};
use qunlong_core::{ClusterId, NodeId};
use wasm_bindgen::prelude::*;
use web_sys::{BinaryType, CloseEvent, MessageEvent, WebSocket};

use crate::driver::sleep;
use crate::store::{Identity, describe, random_bytes, verify};

/// A server that does not finish its handshake in time is hung up on.
const HANDSHAKE_MS: i32 = 5_000;
/// The browser buffers without limit; beyond this the link counts as stuck and drops what it is given.
const BUFFERED_MAX: u32 = 4 << 20;

/// What a socket says.
#[derive(Debug)]
pub enum Heard {
    /// It is open.
    Open,
    /// A message.
    Bytes(Vec<u8>),
    /// It closed, with the peer's reason if it gave one.
    Closed(String),
}

/// An open WebSocket. Closes when dropped.
#[derive(Debug)]
pub struct Socket {
    socket: WebSocket,
    _callbacks: [Closure<dyn FnMut(JsValue)>; 3],
}

impl Socket {
    /// Opens a socket; what it says arrives in the receiver.
    ///
    /// # Errors
    ///
    /// If the browser refuses to try.
    pub fn open(url: &str) -> Result<(Self, mpsc::UnboundedReceiver<Heard>), String> {
        let socket = WebSocket::new(url).map_err(|error| describe(&error))?;
        socket.set_binary_type(BinaryType::Arraybuffer);
        let (said, heard) = mpsc::unbounded();
        let say = move |what: Heard| {
            // Nobody listens any more once the link was dropped.
            let _ = said.unbounded_send(what);
        };
        let on_open = {
            let say = say.clone();
            Closure::new(move |_: JsValue| say(Heard::Open))
        };
        let on_message = {
            let say = say.clone();
            Closure::new(move |event: JsValue| {
                let data = event.unchecked_into::<MessageEvent>().data();
                if let Ok(buffer) = data.dyn_into::<ArrayBuffer>() {
                    say(Heard::Bytes(Uint8Array::new(&buffer).to_vec()));
                }
            })
        };
        let on_close = Closure::new(move |event: JsValue| {
            say(Heard::Closed(event.unchecked_into::<CloseEvent>().reason()));
        });
        let callbacks: [Closure<dyn FnMut(JsValue)>; 3] = [on_open, on_message, on_close];
        socket.set_onopen(Some(callbacks[0].as_ref().unchecked_ref()));
        socket.set_onmessage(Some(callbacks[1].as_ref().unchecked_ref()));
        socket.set_onclose(Some(callbacks[2].as_ref().unchecked_ref()));
        Ok((Self { socket, _callbacks: callbacks }, heard))
    }

    /// Sends, unless the socket is stuck or closed.
    pub fn send(&self, bytes: &[u8]) {
        if self.socket.ready_state() == WebSocket::OPEN && self.socket.buffered_amount() < BUFFERED_MAX {
            let _ = self.socket.send_with_u8_array(bytes);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.socket.set_onopen(None);
        self.socket.set_onmessage(None);
        self.socket.set_onclose(None);
        let _ = self.socket.close();
    }
}

/// A link whose peer is proven.
#[derive(Debug)]
pub struct Link {
    /// The peer.
    pub peer: NodeId,
    /// To send.
    pub socket: Socket,
    /// To receive.
    pub heard: mpsc::UnboundedReceiver<Heard>,
}

/// Dials a server and shakes hands.
///
/// # Errors
///
/// Why there is no link, for people.
pub async fn dial(address: &str, identity: &Identity, cluster: Option<ClusterId>) -> Result<Link, String> {
    let (socket, mut heard) = Socket::open(&format!("ws://{address}/v1/link"))?;
    let shaken = {
        let mut shaking = Box::pin(shake_hands(&socket, &mut heard, identity, cluster)).fuse();
        let mut late = Box::pin(sleep(HANDSHAKE_MS)).fuse();
        select_biased! {
            peer = shaking => peer,
            () = late => Err("the server did not finish its handshake in time".to_owned()),
        }
    };
    Ok(Link { peer: shaken?, socket, heard })
}

async fn shake_hands(
    socket: &Socket,
    heard: &mut mpsc::UnboundedReceiver<Heard>,
    identity: &Identity,
    cluster: Option<ClusterId>,
) -> Result<NodeId, String> {
    let text = |error: qunlong_core::wire::HandshakeError| format!("{}: {error}", error.code());
    loop {
        match heard.next().await {
            Some(Heard::Open) => break,
            Some(Heard::Bytes(_)) => (),
            Some(Heard::Closed(reason)) => return Err(unreachable_or(reason)),
            None => return Err(unreachable_or(String::new())),
        }
    }
    let mine = Hello { public_key: identity.public_key, cluster, nonce: random_bytes() };
    let my_hello = encode_hello(&mine);
    socket.send(&my_hello);
    let their_hello = bytes(heard).await?;
    let theirs = check_hello(&mine, &their_hello).map_err(text)?;
    let signature = identity.sign(&transcript(Side::Dialer, &my_hello, &their_hello)).await?;
    socket.send(&encode_proof(&Proof { signature }));
    let proof = decode_proof(&bytes(heard).await?).map_err(text)?;
    let signed = transcript(Side::Listener, &my_hello, &their_hello);
    if !verify(&theirs.public_key, &signed, &proof.signature).await {
        return Err(text(qunlong_core::wire::HandshakeError::BadSignature));
    }
    Ok(NodeId::of_public_key(&theirs.public_key))
}

async fn bytes(heard: &mut mpsc::UnboundedReceiver<Heard>) -> Result<Vec<u8>, String> {
    loop {
        match heard.next().await {
            Some(Heard::Bytes(bytes)) => return Ok(bytes),
            Some(Heard::Open) => (),
            Some(Heard::Closed(reason)) => return Err(unreachable_or(reason)),
            None => return Err(unreachable_or(String::new())),
        }
    }
}

/// The browser does not tell pages why a connection failed.
fn unreachable_or(reason: String) -> String {
    if reason.is_empty() { "UNREACHABLE: no server answers there, or it refused this page".to_owned() } else { reason }
}
