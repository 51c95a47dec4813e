//! `auth` of an upstream, checked: where its credential comes from.

use std::path::PathBuf;

/// Where the credential of an upstream comes from, and what is made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer` and a token (RFC 6750 section 2.1).
    Bearer(TokenSource),
    /// `Authorization: Basic` (RFC 7617 section 2).
    Basic {
        /// The user, without a colon.
        user: Box<str>,
        /// The file with the password, read again when it changes.
        password: PathBuf,
    },
    /// A field of any name.
    Header {
        /// Its name as it is sent.
        name: Box<str>,
        /// The file with its value, read again when it changes.
        value: PathBuf,
    },
}

/// Where a token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// A file, read again when it changes.
    File(PathBuf),
}

impl Auth {
    /// What the file and the admin API call it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Bearer(_) => "bearer",
            Self::Basic { .. } => "basic",
            Self::Header { .. } => "header",
        }
    }

    /// The name of the field that the credential stands in, as it is sent.
    pub(crate) fn field(&self) -> &str {
        match self {
            Self::Bearer(_) | Self::Basic { .. } => "Authorization",
            Self::Header { name, .. } => name,
        }
    }

    /// Whether the credential stands in the field of this name.
    pub(crate) fn is_field(&self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(self.field().as_bytes())
    }

    /// The file that its secret is read from.
    pub(crate) fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::Bearer(TokenSource::File(file))
            | Self::Basic { password: file, .. }
            | Self::Header { value: file, .. } => Some(file),
        }
    }
}
