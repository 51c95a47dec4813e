//! `auth` of an upstream, checked: where its credential comes from.

pub mod aws;
pub mod servers;

use std::mem;
use std::path::PathBuf;
use std::time::Duration;

use super::signing_key::Algorithm;
use super::workload_endpoint::Endpoint;
use aws::SigV4;
use servers::{ClientCredentials, Subject, TokenExchange};

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
    /// A bearer token that a client gets for itself.
    OAuth2(Box<ClientCredentials>),
    /// A bearer token that is got for another one.
    TokenExchange(Box<TokenExchange>),
    /// Signatures of AWS on each request.
    SigV4(SigV4),
    /// A secret in place of the placeholder that programs send, in any field.
    Placeholder {
        /// What stands behind [`PREFIX`](super::placeholder::PREFIX).
        name: Box<str>,
        /// The file with the secret, read again when it changes.
        value: PathBuf,
    },
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
    /// What a command prints.
    Command {
        /// The program and its arguments.
        words: Vec<String>,
        /// How long that is valid.
        ttl: Duration,
    },
    /// A Workload API.
    Spiffe(SvidAudience),
}

/// For whom a JWT-SVID of the proxy's own identity is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SvidAudience {
    /// Where it is got.
    pub endpoint: Endpoint,
    /// Who is to accept it.
    pub audience: String,
}

impl Auth {
    /// What the file and the admin API call it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Bearer(_) => "bearer",
            Self::Basic { .. } => "basic",
            Self::Header { .. } => "header",
            Self::Identity(_) => "identity",
            Self::OAuth2(_) => "oauth2",
            Self::TokenExchange(_) => "token_exchange",
            Self::SigV4(settings) if settings.keys.subject().is_some() => "token_exchange",
            Self::SigV4(_) => "sigv4",
            Self::Placeholder { .. } => "placeholder",
        }
    }

    /// The name of the field that the credential stands in, as it is sent; empty where it
    /// may be any.
    pub(crate) fn field(&self) -> &str {
        match self {
            Self::Bearer(_) | Self::Basic { .. } | Self::OAuth2(_) | Self::TokenExchange(_) => {
                "Authorization"
            }
            Self::SigV4(_) => "Authorization",
            Self::Header { name, .. } => name,
            Self::Identity(_) => "X-Service-Identity",
            Self::Placeholder { .. } => "",
        }
    }

    /// Whether the credential stands in the field of this name.
    pub(crate) fn is_field(&self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(self.field().as_bytes())
    }

    /// The command that prints its secret.
    pub(crate) fn command(&self) -> Option<&Vec<String>> {
        match self {
            Self::Bearer(TokenSource::Command { words, .. }) => Some(words),
            _ => None,
        }
    }

    /// Whether keys of AWS sign.
    pub(crate) fn signs(&self) -> bool {
        matches!(self, Self::SigV4(_))
    }

    /// Whether it shows the proxy's own identity.
    pub(crate) fn shows_identity(&self) -> bool {
        match self {
            Self::Bearer(source) => matches!(source, TokenSource::Spiffe(_)),
            Self::TokenExchange(settings) => settings.subject.shows_identity(),
            Self::SigV4(settings) => settings.keys.subject().is_some_and(Subject::shows_identity),
            Self::Basic { .. }
            | Self::Header { .. }
            | Self::Identity(_)
            | Self::OAuth2(_)
            | Self::Placeholder { .. } => false,
        }
    }

    /// The files that it is read from, or with which it is got.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut own = self.clone();
        own.files_mut().into_iter().map(mem::take).collect()
    }

    /// The same, to be changed.
    pub(crate) fn files_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Bearer(TokenSource::File(file))
            | Self::Basic { password: file, .. }
            | Self::Header { value: file, .. }
            | Self::Placeholder { value: file, .. } => vec![file],
            Self::Bearer(TokenSource::Command { .. } | TokenSource::Spiffe(_)) => Vec::new(),
            Self::Identity(identity) => vec![&mut identity.key],
            Self::SigV4(settings) => settings.keys.files_mut(),
            Self::OAuth2(settings) => {
                let own = settings.client_auth.file_mut();
                own.into_iter().chain(settings.server.files_mut()).collect()
            }
            Self::TokenExchange(settings) => {
                let own = settings.subject.file_mut().into_iter();
                own.chain(settings.server.files_mut()).collect()
            }
        }
    }
}
