//! Items of PEM files (RFC 7468).

use std::fmt;

use rustls::pki_types::pem::{self, PemObject};

/// Why a file cannot be read as PEM.
#[derive(Debug)]
pub(crate) enum PemError {
    /// An item begins in the line, counted from 1, in which another one ends: files were
    /// put together of which one has no line end at its end.
    Joined(usize),
    /// An item is not well-formed.
    Item(pem::Error),
}

/// All items of one kind, in their order.
///
/// # Errors
/// One is not well-formed, or would be lost.
pub(crate) fn items<T: PemObject>(text: &[u8]) -> Result<Vec<T>, PemError> {
    // The parser takes the end of an item for the end of its line.
    if let Some(line) = text.split(|byte| *byte == b'\n').position(is_joined) {
        return Err(PemError::Joined(line + 1));
    }
    let items = T::pem_slice_iter(text).collect::<Result<_, _>>();
    items.map_err(PemError::Item)
}

fn is_joined(line: &[u8]) -> bool {
    const BEGIN: &[u8] = b"-----BEGIN ";
    line.starts_with(b"-----END ") && line.windows(BEGIN.len()).any(|part| part == BEGIN)
}

impl fmt::Display for PemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined(line) => write!(
                f,
                "line {line} ends one item and begins another: put a line end between them"
            ),
            Self::Item(pem::Error::MissingSectionEnd { .. }) => {
                f.write_str("an item has no END line: the file is not whole")
            }
            Self::Item(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for PemError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Joined(_) => None,
            Self::Item(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;

    use super::*;

    const ITEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";

    fn count(text: &str) -> Result<usize, String> {
        let items = items::<CertificateDer<'_>>(text.as_bytes());
        items
            .map(|items| items.len())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn files_put_together_without_a_line_end_lose_nothing_in_silence() {
        assert_eq!(count(&format!("{ITEM}\n{ITEM}")), Ok(2));
        assert_eq!(count(&format!("{ITEM}\r\ntext\r\n{ITEM}\r\n")), Ok(2));
        let joined = count(&format!("# both\n{ITEM}{ITEM}\n")).unwrap_err();
        assert!(joined.starts_with("line 4 ends one item"), "{joined}");
    }
}
