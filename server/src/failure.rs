//! Why a command could not be done, as one sentence for a person and one code for a script.

use std::fmt;
use std::io;
use std::path::Path;

/// An error that ends a command.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Stable.
    pub(crate) code: &'static str,
    /// What happened and what to do.
    pub(crate) message: String,
    /// The process's exit code.
    pub(crate) exit: u8,
}

/// The disk cannot be trusted any more (`EX_IOERR`).
pub(crate) const EXIT_DISK: u8 = 74;

impl Failure {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), exit: 1 }
    }

    pub(crate) fn io(verb: &str, path: &Path, error: &io::Error) -> Self {
        let code = if error.kind() == io::ErrorKind::StorageFull { "DISK_FULL" } else { "DISK_FAILED" };
        Self { code, message: format!("cannot {verb} {}: {error}", path.display()), exit: EXIT_DISK }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Failure {}
