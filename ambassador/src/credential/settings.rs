//! `auth` of an upstream, checked: where its credential comes from.

use std::path::PathBuf;

/// Where the credential of an upstream comes from, and what is made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer` and a token (RFC 6750 section 2.1).
    Bearer(TokenSource),
}

/// Where a token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// A file, read again when it changes.
    File(PathBuf),
}

impl Auth {
    /// What the admin API calls it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Bearer(_) => "bearer",
        }
    }

    /// The name of the field that the credential stands in, as it is sent.
    pub(crate) fn field(&self) -> &str {
        match self {
            Self::Bearer(_) => "Authorization",
        }
    }

    /// Whether the credential stands in the field of this name.
    pub(crate) fn is_field(&self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(self.field().as_bytes())
    }

    /// The files that it is read from.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let Self::Bearer(TokenSource::File(file)) = self;
        std::iter::once(file)
    }
}
