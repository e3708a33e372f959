//! A tab's journal: the core's own format in the origin private file system, synced before anything that depends on
//! it is said; and the identity it belongs to.
//!
//! The two can vanish apart, by eviction or by the user's hand. The storage incarnation is in both; where they do
//! not match, the identity is given up for good and the tab comes back as a new node.

use js_sys::Uint8Array;
use qunlong_core::journal::{self, JournalError, StorageIdentity, Writer};
use qunlong_core::member::Durability;
use qunlong_core::{NodeId, Record};
use wasm_bindgen::prelude::*;

/// A segment is compacted beyond this and three times its checkpoint, whichever is larger.
const COMPACT_BYTES: usize = 4 << 20;

#[wasm_bindgen(module = "/js/storage.js")]
extern "C" {
    #[wasm_bindgen(js_name = openIdentity, catch)]
    async fn open_identity(hint: Option<String>) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(js_name = volatileIdentity, catch)]
    async fn volatile_identity() -> Result<JsValue, JsValue>;
    #[wasm_bindgen(js_name = keepIdentity, catch)]
    async fn keep_identity(identity: &JsValue) -> Result<(), JsValue>;
    #[wasm_bindgen(js_name = forgetIdentity, catch)]
    async fn forget_identity(id: &str) -> Result<(), JsValue>;
    #[wasm_bindgen(js_name = sign, catch)]
    async fn js_sign(identity: &JsValue, bytes: &[u8]) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(js_name = verify, catch)]
    async fn js_verify(public_key: &[u8], bytes: &[u8], signature: &[u8]) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(js_name = journalNames, catch)]
    async fn journal_names(id: &str) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(js_name = openFile, catch)]
    async fn open_file(name: &str) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(js_name = removeFile, catch)]
    async fn remove_file(name: &str) -> Result<(), JsValue>;
    #[wasm_bindgen(js_name = readAll, catch)]
    fn read_all(file: &JsValue) -> Result<Vec<u8>, JsValue>;
    #[wasm_bindgen(catch)]
    fn append(file: &JsValue, bytes: &[u8]) -> Result<(), JsValue>;
    #[wasm_bindgen(catch)]
    fn cut(file: &JsValue, length: f64) -> Result<(), JsValue>;
    fn close(file: &JsValue);
    #[wasm_bindgen(js_name = isPersisted, catch)]
    async fn is_persisted() -> Result<JsValue, JsValue>;
    fn random(length: u32) -> Vec<u8>;
}

/// A tab's key: it signs, and nobody can read it.
#[derive(Clone, Debug)]
pub struct Identity {
    value: JsValue,
    /// The node's id.
    pub id: NodeId,
    /// The key's public half.
    pub public_key: [u8; 32],
    incarnation: [u8; 16],
    is_new: bool,
}

/// A journal file that this worker alone has open.
#[derive(Debug)]
pub struct Journal {
    identity: StorageIdentity,
    file: JsValue,
    number: u64,
    writer: Writer,
    length: usize,
    checkpoint: usize,
}

/// What a tab starts from.
#[derive(Debug)]
pub struct Opened {
    /// Its key.
    pub identity: Identity,
    /// Its journal, or `None` for memory only.
    pub journal: Option<Journal>,
    /// What the journal held.
    pub records: Vec<Record>,
    /// Why it is volatile, or why it is a new node.
    pub reason: Option<String>,
    /// Whether the browser promised not to evict it.
    pub persisted: bool,
}

impl Opened {
    /// Whether it keeps what it acknowledges.
    #[must_use]
    pub fn durability(&self) -> Durability {
        if self.journal.is_some() { Durability::Durable } else { Durability::Volatile }
    }
}

/// Opens this tab's storage: under the identity it had, a free stored one, or a new one.
///
/// # Errors
///
/// If the browser cannot even make a key.
pub async fn open(mut hint: Option<String>) -> Result<Opened, String> {
    let persisted = is_persisted().await.is_ok_and(|answer| answer.is_truthy());
    let mut reason = None;
    // Each attempt either succeeds or forgets one identity that can no longer be used.
    for _ in 0..8 {
        let identity = match open_identity(hint.take()).await.map(Identity::from_js) {
            Ok(Some(identity)) => identity,
            Ok(None) => return Err("the browser keeps something else in the place of identities".to_owned()),
            Err(error) => return open_volatile(describe(&error)).await,
        };
        match open_journal(&identity).await {
            Ok((journal, records)) => {
                return Ok(Opened { identity, journal: Some(journal), records, reason, persisted });
            }
            Err(OpenError::Lost(what)) => {
                reason = Some(what);
                forget(&identity, None).await;
            }
            Err(OpenError::Browser(what)) => return open_volatile(what).await,
        }
    }
    open_volatile("no stored identity could be used".to_owned()).await
}

async fn open_volatile(reason: String) -> Result<Opened, String> {
    let identity = volatile_identity().await.map_err(|error| describe(&error))?;
    let identity = Identity::from_js(identity).ok_or("the browser made no key")?;
    Ok(Opened { identity, journal: None, records: Vec::new(), reason: Some(reason), persisted: false })
}

enum OpenError {
    /// The journal is not this identity's any more.
    Lost(String),
    /// The browser offers no such storage.
    Browser(String),
}

impl From<JsValue> for OpenError {
    fn from(error: JsValue) -> Self {
        Self::Browser(describe(&error))
    }
}

impl From<JournalError> for OpenError {
    fn from(error: JournalError) -> Self {
        Self::Lost(format!("{}: {error}", error.code()))
    }
}

async fn open_journal(identity: &Identity) -> Result<(Journal, Vec<Record>), OpenError> {
    if identity.is_new {
        let journal = Journal::create(identity.storage(), 1, &[]).await?;
        keep_identity(&identity.value).await?;
        return Ok((journal, Vec::new()));
    }
    let mut names = names_of(identity.id).await?;
    while let Some(name) = names.pop() {
        let file = open_file(&name).await?;
        let bytes = read_all(&file)?;
        match journal::recover(&bytes, &identity.storage()) {
            Ok(recovered) => {
                cut(&file, recovered.length as f64)?;
                for older in names {
                    remove_file(&older).await?;
                }
                let journal = Journal {
                    identity: identity.storage(),
                    file,
                    number: recovered.number,
                    writer: recovered.writer,
                    length: recovered.length,
                    checkpoint: recovered.length / 2,
                };
                return Ok((journal, recovered.records));
            }
            // The worker ended in the middle of a compaction: the older one is still whole.
            Err(JournalError::Unfinished | JournalError::BadHead) if !names.is_empty() => {
                close(&file);
                remove_file(&name).await?;
            }
            Err(error) => {
                close(&file);
                return Err(error.into());
            }
        }
    }
    Err(OpenError::Lost("STORAGE_LOST: the journal is gone".to_owned()))
}

/// Gives up an identity and its journal for good.
pub async fn forget(identity: &Identity, journal: Option<Journal>) {
    if let Some(journal) = journal {
        close(&journal.file);
    }
    // What cannot be removed is refused again at the next start.
    let _ = forget_identity(&qunlong_core::id::hex(identity.id)).await;
    for name in names_of(identity.id).await.unwrap_or_default() {
        let _ = remove_file(&name).await;
    }
}

async fn names_of(id: NodeId) -> Result<Vec<String>, JsValue> {
    let names = journal_names(&qunlong_core::id::hex(id)).await?;
    Ok(js_sys::Array::from(&names).iter().filter_map(|name| name.as_string()).collect())
}

impl Identity {
    fn from_js(value: JsValue) -> Option<Self> {
        let field = |name: &str| js_sys::Reflect::get(&value, &name.into()).ok();
        let id = NodeId::parse_hex(&field("id")?.as_string()?)?;
        let public_key = Uint8Array::new(&field("publicKey")?).to_vec().try_into().ok()?;
        let incarnation = Uint8Array::new(&field("incarnation")?).to_vec().try_into().ok()?;
        let is_new = field("isNew")?.is_truthy();
        (NodeId::of_public_key(&public_key) == id).then_some(Self { value, id, public_key, incarnation, is_new })
    }

    pub(crate) fn storage(&self) -> StorageIdentity {
        StorageIdentity { node: self.id, incarnation: self.incarnation }
    }

    /// Signs.
    ///
    /// # Errors
    ///
    /// If the browser refuses.
    pub async fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let signature = js_sign(&self.value, bytes).await.map_err(|error| describe(&error))?;
        Ok(Uint8Array::new(&signature).to_vec())
    }
}

/// Whether a peer's signature is good.
pub async fn verify(public_key: &[u8; 32], bytes: &[u8], signature: &[u8]) -> bool {
    js_verify(public_key, bytes, signature).await.is_ok_and(|answer| answer.is_truthy())
}

/// Random bytes from the browser.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    random(N as u32).try_into().expect("the browser gives as many bytes as it is asked for")
}

impl Journal {
    async fn create(identity: StorageIdentity, number: u64, records: &[Record]) -> Result<Self, JsValue> {
        let (writer, bytes) = journal::create(&identity, number, records);
        let file = open_file(&file_name(identity.node, number)).await?;
        cut(&file, 0.0)?;
        append(&file, &bytes)?;
        let length = bytes.len();
        Ok(Self { identity, file, number, writer, length, checkpoint: length })
    }

    /// Appends and syncs.
    ///
    /// # Errors
    ///
    /// If the browser cannot; the node must stop then.
    pub fn persist(&mut self, records: &[Record]) -> Result<(), String> {
        for bytes in self.writer.batches(records) {
            append(&self.file, &bytes).map_err(|error| describe(&error))?;
            self.length += bytes.len();
        }
        Ok(())
    }

    /// Bytes so far.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Whether it has grown enough to be worth compacting.
    #[must_use]
    pub fn wants_compaction(&self) -> bool {
        self.length > COMPACT_BYTES.max(3 * self.checkpoint)
    }

    /// The journal's next segment, durable and in force; the old one is removed.
    ///
    /// # Errors
    ///
    /// If the browser cannot, or the journal does not read back.
    pub async fn compacted(self) -> Result<Self, String> {
        let text = |error: JsValue| describe(&error);
        let bytes = read_all(&self.file).map_err(text)?;
        let recovered = journal::recover(&bytes, &self.identity).map_err(|error| error.to_string())?;
        if recovered.torn > 0 {
            return Err("what was just written does not read back".to_owned());
        }
        let records = journal::latest(recovered.records);
        let next = Self::create(self.identity, self.number + 1, &records).await.map_err(text)?;
        close(&self.file);
        remove_file(&file_name(self.identity.node, self.number)).await.map_err(text)?;
        Ok(next)
    }
}

/// Numbers are padded, so that names sort by them.
fn file_name(node: NodeId, number: u64) -> String {
    format!("journal-{node:x}-{number:08}")
}

/// What the browser says of an error.
#[must_use]
pub fn describe(error: &JsValue) -> String {
    let message = js_sys::Reflect::get(error, &"message".into()).ok().and_then(|message| message.as_string());
    message.unwrap_or_else(|| format!("{error:?}"))
}
