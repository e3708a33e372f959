//! Who this node is: an Ed25519 key in a file that nobody else may read.
//!
//! The file also names the *storage incarnation*, which stands in the journal's head as well. A key whose journal is
//! gone, or was put back from a copy of another life, has lost promises it may have made, and must not speak under
//! its old name: such a start is refused, and the operator may ask for a new identity.

use std::io;
use std::path::Path;

use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use qunlong_core::NodeId;
use qunlong_core::journal::StorageIdentity;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::files::Files;

/// A node's key and the life of its storage.
pub(crate) struct Identity {
    key: SigningKey,
    incarnation: [u8; 16],
}

/// The key file's content, as JSON.
#[derive(Serialize, Deserialize)]
struct KeyFile {
    /// 32 bytes, hexadecimal.
    secret: String,
    /// 16 bytes, hexadecimal.
    storage_incarnation: String,
}

impl Identity {
    /// A new key and a new storage.
    pub(crate) fn mint() -> Result<Self, Failure> {
        Ok(Self { key: SigningKey::from_bytes(&random()?), incarnation: random()? })
    }

    pub(crate) fn node(&self) -> NodeId {
        NodeId::of_public_key(&self.public_key())
    }

    pub(crate) fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    pub(crate) fn storage(&self) -> StorageIdentity {
        StorageIdentity { node: self.node(), incarnation: self.incarnation }
    }

    pub(crate) fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.key.sign(bytes).to_bytes().to_vec()
    }

    /// Reads a key file that only its owner may read.
    pub(crate) fn read(files: &dyn Files, path: &Path) -> Result<Self, Failure> {
        let mode = files.mode(path).map_err(|error| Failure::io("read", path, &error))?;
        if mode & 0o077 != 0 {
            return Err(Failure::new(
                "KEY_FILE_PERMISSIONS",
                format!("{} can be read by others (mode {mode:o}); run: chmod 600 {0}", path.display()),
            ));
        }
        let text = files.read(path).map_err(|error| Failure::io("read", path, &error))?;
        let unreadable = || Failure::new("KEY_FILE_UNREADABLE", format!("{} is not a key file", path.display()));
        let file: KeyFile = serde_json::from_slice(&text).map_err(|_| unreadable())?;
        let secret = parse_hex::<32>(&file.secret).ok_or_else(unreadable)?;
        let incarnation = parse_hex::<16>(&file.storage_incarnation).ok_or_else(unreadable)?;
        Ok(Self { key: SigningKey::from_bytes(&secret), incarnation })
    }

    /// Writes the key file durably, readable by its owner alone.
    pub(crate) fn write(&self, files: &dyn Files, path: &Path) -> Result<(), Failure> {
        let file = KeyFile { secret: hex(&self.key.to_bytes()), storage_incarnation: hex(&self.incarnation) };
        let text = serde_json::to_string_pretty(&file).expect("strings encode");
        let written = || -> io::Result<()> {
            let mut file = files.create(path)?;
            file.append(text.as_bytes())?;
            file.sync()
        };
        written().map_err(|error| Failure::io("write", path, &error))
    }
}

/// Whether `signature` over `bytes` was made with the private half of `public_key`.
pub(crate) fn verify(public_key: &[u8; 32], bytes: &[u8], signature: &[u8]) -> bool {
    let key = VerifyingKey::from_bytes(public_key);
    let signature = Signature::from_slice(signature);
    matches!((key, signature), (Ok(key), Ok(signature)) if key.verify(bytes, &signature).is_ok())
}

/// Bytes from the operating system's generator.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new("NO_RANDOMNESS", format!("the operating system gave no randomness: {error}")))?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::files::SystemFiles;

    #[test]
    fn a_key_file_reads_back_and_is_private() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("key.json");
        let identity = Identity::mint().expect("randomness");
        identity.write(&SystemFiles, &path).expect("writable");
        let again = Identity::read(&SystemFiles, &path).expect("readable");
        assert_eq!((identity.node(), identity.incarnation), (again.node(), again.incarnation));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("key.json");
        Identity::mint().expect("randomness").write(&SystemFiles, &path).expect("writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("ours");
        assert_eq!(Identity::read(&SystemFiles, &path).err().expect("refused").code, "KEY_FILE_PERMISSIONS");
    }

    #[test]
    fn a_signature_fits_its_key_and_its_bytes() {
        let (one, two) = (Identity::mint().expect("randomness"), Identity::mint().expect("randomness"));
        let signature = one.sign(b"hello");
        assert!(verify(&one.public_key(), b"hello", &signature));
        assert!(!verify(&two.public_key(), b"hello", &signature));
        assert!(!verify(&one.public_key(), b"hallo", &signature));
        assert!(!verify(&one.public_key(), b"hello", &signature[1..]));
    }
}
