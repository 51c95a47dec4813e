//! Servers that give credentials, and what they are asked for.

use std::path::PathBuf;

use super::SvidAudience;
use crate::credential::server_url::ServerUrl;

/// A server that gives tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenServer {
    /// Where it is asked.
    pub(crate) url: ServerUrl,
    /// Who vouches for its certificate; `None`: whom the system trusts.
    pub(crate) ca: Option<PathBuf>,
    /// What is shown to it.
    pub(crate) certificate: Option<ClientCertificate>,
}

/// A certificate and its key, in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain in PEM, that of the client first.
    pub cert: PathBuf,
    /// The key in PEM.
    pub key: PathBuf,
}

/// A token that a client gets for itself (RFC 6749 section 4.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCredentials {
    /// Whom to ask.
    pub(crate) server: TokenServer,
    /// Who asks.
    pub client_id: String,
    /// How it shows that.
    pub client_auth: ClientAuth,
    /// What the token is to allow.
    pub scopes: Vec<String>,
    /// Who is to accept the token, where the server wants to be told.
    pub audience: Option<String>,
}

/// How a client shows who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// A secret of a file, in the form.
    SecretPost(PathBuf),
    /// The same, in `Authorization: Basic`.
    SecretBasic(PathBuf),
    /// A token that it signs (RFC 7523).
    PrivateKeyJwt(ClientKey),
    /// The certificate of [`TokenServer`] (RFC 8705).
    Mtls,
}

/// The key of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientKey {
    /// The key in PEM.
    pub file: PathBuf,
    /// What the server calls it; `None`: by its thumbprint.
    pub id: Option<String>,
}

/// A token that is got for another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenExchange {
    /// Whom to ask.
    pub(crate) server: TokenServer,
    /// The token that is shown.
    pub subject: Subject,
    /// What is asked for.
    pub(crate) grant: ExchangeGrant,
}

/// The token that is shown for another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// That of a file, read again when it changes.
    File(PathBuf),
    /// That of a Workload API.
    Spiffe(SvidAudience),
}

impl Subject {
    /// Whether it shows the proxy's own identity.
    pub(super) fn shows_identity(&self) -> bool {
        matches!(self, Self::Spiffe(_))
    }

    /// The file, where it is one.
    pub(crate) fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::File(file) => Some(file),
            Self::Spiffe(_) => None,
        }
    }

    /// The same, to be changed.
    pub(super) fn file_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::File(file) => Some(file),
            Self::Spiffe(_) => None,
        }
    }
}

/// What is asked for in exchange, by the kind of server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExchangeGrant {
    /// As RFC 8693 has it.
    Rfc8693 {
        /// Who is to accept the token.
        audience: Option<String>,
        /// What it is to allow.
        scopes: Vec<String>,
    },
    /// The Security Token Service of Google Cloud.
    Gcp {
        /// The provider of the pool that trusts the subject.
        audience: String,
        /// Where a token of a service account is got for the one of the exchange.
        impersonate: Option<ServerUrl>,
        /// What it is to allow.
        scopes: Vec<String>,
    },
    /// Microsoft Entra, where the subject stands for the secret of an application.
    Azure {
        /// The application.
        client_id: String,
        /// What the token is to allow.
        scope: String,
    },
}

impl TokenServer {
    /// The files that are read to reach it.
    pub(super) fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let certificate = self.certificate.iter_mut();
        let certificate = certificate.flat_map(|it| [&mut it.cert, &mut it.key]);
        self.ca.iter_mut().chain(certificate)
    }
}

impl ClientAuth {
    /// The file that it takes.
    pub(crate) fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::SecretPost(file) | Self::SecretBasic(file) => Some(file),
            Self::PrivateKeyJwt(key) => Some(&key.file),
            Self::Mtls => None,
        }
    }

    /// The same, to be changed.
    pub(super) fn file_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::SecretPost(file) | Self::SecretBasic(file) => Some(file),
            Self::PrivateKeyJwt(key) => Some(&mut key.file),
            Self::Mtls => None,
        }
    }
}
