//! What a source of credentials gives, or why it gives nothing.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::token_answer::{AccessToken, ServerError};
use crate::clock::{self, Instant};
use crate::control::spiffe::{CallError, fetch_jwt_svid};
use crate::credential::Material;
use crate::credential::aws_profile::ProfileError;
use crate::credential::settings::SvidAudience;
use crate::credential::signing_key::{Algorithm, KeyError, SignError};
use crate::credential::token::TokenMistake;
use crate::tls::FileError;

/// A token that says that it is valid for longer is asked for again after that.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3_600);

/// What a source gives.
#[derive(Debug)]
pub(super) struct Token {
    /// The secret alone, without a scheme, or keys.
    pub value: Material,
    /// Until when it is valid; `None`: until there is another one.
    pub expires: Option<Instant>,
}

/// Why there is no token. Tells nothing of what a source gave.
#[derive(Debug)]
pub(super) enum SourceError {
    /// The file cannot be read.
    Read(io::Error),
    /// The command fails.
    Command(io::Error),
    /// What came cannot be sent.
    Unusable(TokenMistake),
    /// There is no key in it.
    Key(KeyError),
    /// The key is one for other signatures than these.
    Algorithm(Algorithm),
    /// The key does not sign.
    Sign(SignError),
    /// The server gives nothing.
    Server(ServerError),
    /// A Workload API gives none.
    Spiffe(CallError),
    /// No connection to the server can be encrypted.
    Tls(FileError),
    /// A file that it needs is of no use.
    Needs(PathBuf, Box<SourceError>),
    /// There are no keys in it.
    Profile(ProfileError),
    /// A variable of the environment is missing, or of no use.
    Variable(&'static str),
    /// It took longer than that.
    Late(Duration),
}

impl AccessToken {
    /// A JWT-SVID for these.
    pub(super) async fn of_svid(wanted: &SvidAudience) -> Result<Self, SourceError> {
        let svid = fetch_jwt_svid(wanted).await.map_err(SourceError::Spiffe)?;
        let left_s = svid.expires.saturating_sub(clock::unix_ms() / 1_000);
        // No token is valid for years.
        let left = Duration::from_secs(left_s).min(LIFETIME_MAX);
        Ok(Self {
            value: svid.token,
            lifetime: left,
        })
    }
}

impl From<AccessToken> for Token {
    fn from(token: AccessToken) -> Self {
        Self {
            value: Material::Secret(token.value),
            expires: Some(clock::now() + token.lifetime),
        }
    }
}

impl SourceError {
    /// It is this file that is of no use.
    pub(super) fn of_file(path: &Path, error: impl Into<Self>) -> Self {
        Self::Needs(path.to_owned(), Box::new(error.into()))
    }

    /// How long the source wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Server(error) => error.retry_after(),
            _ => None,
        }
    }
}

impl From<io::Error> for SourceError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<TokenMistake> for SourceError {
    fn from(mistake: TokenMistake) -> Self {
        Self::Unusable(mistake)
    }
}

impl From<KeyError> for SourceError {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl From<ServerError> for SourceError {
    fn from(error: ServerError) -> Self {
        Self::Server(error)
    }
}

impl From<SignError> for SourceError {
    fn from(error: SignError) -> Self {
        Self::Sign(error)
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "cannot be read: {error}"),
            Self::Command(error) => write!(f, "{error}"),
            Self::Unusable(mistake) => write!(f, "{mistake}"),
            Self::Key(error) => write!(f, "{error}"),
            Self::Algorithm(named) => {
                write!(
                    f,
                    "holds a key that does not sign by {}: name its algorithm",
                    named.name()
                )
            }
            Self::Sign(error) => write!(f, "{error}"),
            Self::Server(error) => write!(f, "{error}"),
            Self::Spiffe(error) => write!(f, "{error}"),
            Self::Tls(FileError { key, what }) => write!(f, "needs tls.{key}, which {what}"),
            Self::Needs(path, error) => write!(f, "needs {}, which {error}", path.display()),
            Self::Profile(error) => write!(f, "{error}"),
            Self::Variable(name) => write!(f, "has no {name} that can be used"),
            Self::Late(limit) => write!(f, "gives nothing within {limit:?}"),
        }
    }
}

impl std::error::Error for SourceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) | Self::Command(error) => Some(error),
            Self::Unusable(mistake) => Some(mistake),
            Self::Key(error) => Some(error),
            Self::Sign(error) => Some(error),
            Self::Server(error) => Some(error),
            Self::Spiffe(error) => Some(error),
            Self::Needs(_, error) => Some(error),
            Self::Profile(error) => Some(error),
            Self::Algorithm(_) | Self::Tls(_) | Self::Variable(_) | Self::Late(_) => None,
        }
    }
}
