//! `auth` of an upstream, checked: where its credential comes from.

use std::path::PathBuf;
use std::time::Duration;

use super::signing_key::Algorithm;

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
    /// `X-Service-Identity` and a token that is signed here.
    Identity(Identity),
}

/// A token that is signed here (RFC 7519).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The file of the key, in PEM.
    pub key: PathBuf,
    /// What the key signs by.
    pub(crate) algorithm: Algorithm,
    /// Who calls.
    pub issuer: String,
    /// Who is called.
    pub audience: String,
    /// How long a token is valid; 10 s at least.
    pub ttl: Duration,
}

impl Identity {
    /// How long a token is valid where the file does not say.
    pub(crate) const TTL: Duration = Duration::from_secs(300);
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
            Self::Identity(_) => "identity",
        }
    }

    /// The name of the field that the credential stands in, as it is sent.
    pub(crate) fn field(&self) -> &str {
        match self {
            Self::Bearer(_) | Self::Basic { .. } => "Authorization",
            Self::Header { name, .. } => name,
            Self::Identity(_) => "X-Service-Identity",
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
            Self::Identity(identity) => Some(&identity.key),
        }
    }
}
