//! Bytes that nobody else is to see.

use std::fmt;

use zeroize::Zeroizing;

/// A password, token or key. It is zeroed when it is dropped, and no text shows it.
#[derive(PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// What only the one who sends it may read.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Takes the line ends from behind it.
    pub(super) fn trim_line_ends(&mut self) {
        while self.0.last().is_some_and(|byte| b"\r\n".contains(byte)) {
            self.0.pop();
        }
    }
}

impl AsRef<[u8]> for Secret {
    /// The same, for what takes it over to send it.
    fn as_ref(&self) -> &[u8] {
        self.expose()
    }
}

impl From<Vec<u8>> for Secret {
    /// Takes the bytes over: no copy stays behind.
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_shows_a_secret() {
        let secret = Secret::from(b"hunter2".to_vec());
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(secret.expose(), b"hunter2");
    }
}
