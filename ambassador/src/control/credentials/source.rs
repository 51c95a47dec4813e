//! Where credentials come from.

use std::fmt;
use std::sync::Arc;

use super::aws_keys::KeySource;
use super::command::CommandSource;
use super::identity::{IdentitySource, PublicKeys};
use super::secret_file::SecretFile;
use super::token::{SourceError, Token};
use super::token_answer::AccessToken;
use super::token_server::{Grant, ServerSource};
use crate::control::NameService;
use crate::credential::Material;
use crate::credential::settings::{Auth, SvidAudience, TokenSource};
use crate::credential::token::{self, TOKEN_BYTES_MAX};
use crate::workload::Commands;

/// Where a credential comes from.
pub(super) enum Source {
    /// A file.
    File(FileSource),
    /// A command.
    Command(CommandSource),
    /// A Workload API.
    Spiffe(SvidAudience),
    /// A key that signs it.
    Identity(IdentitySource),
    /// A server that gives it.
    Server(Box<ServerSource>),
    /// Keys of AWS.
    Keys(Box<KeySource>),
}

/// What sources share.
#[derive(Clone)]
pub(in crate::control) struct Surroundings {
    /// Those of the tokens that are signed here.
    pub public_keys: Arc<PublicKeys>,
    /// How the names of servers are looked up.
    pub names: Arc<NameService>,
    /// What runs commands.
    pub commands: Arc<Commands>,
}

/// A file that holds a token.
pub(super) struct FileSource(SecretFile);

impl Source {
    /// That of an upstream.
    pub(super) fn of(auth: &Auth, surroundings: &Surroundings) -> Self {
        match auth {
            Auth::Bearer(TokenSource::Spiffe(wanted)) => Self::Spiffe(wanted.clone()),
            Auth::Bearer(TokenSource::File(path))
            | Auth::Basic { password: path, .. }
            | Auth::Header { value: path, .. }
            | Auth::Placeholder { value: path, .. } => {
                Self::File(FileSource(SecretFile::new(path)))
            }
            Auth::Bearer(TokenSource::Command { words, ttl }) => {
                Self::Command(CommandSource::new(words, *ttl, &surroundings.commands))
            }
            Auth::Identity(settings) => {
                Self::Identity(IdentitySource::new(settings, &surroundings.public_keys))
            }
            Auth::SigV4(settings) => {
                Self::Keys(Box::new(KeySource::new(settings, &surroundings.names)))
            }
            Auth::OAuth2(settings) => {
                let grant = Grant::ClientCredentials(settings.as_ref().clone());
                Self::Server(Box::new(ServerSource::new(grant, &surroundings.names)))
            }
            Auth::TokenExchange(settings) => {
                let grant = Grant::Exchange(settings.as_ref().clone());
                Self::Server(Box::new(ServerSource::new(grant, &surroundings.names)))
            }
        }
    }

    /// Gets a token.
    ///
    /// # Errors
    /// There is none, or none that can be sent.
    pub(super) async fn fetch(&mut self) -> Result<Token, SourceError> {
        match self {
            Self::File(file) => file.fetch().await,
            Self::Command(command) => command.fetch().await,
            Self::Spiffe(wanted) => AccessToken::of_svid(wanted).await.map(Token::from),
            Self::Identity(identity) => identity.fetch().await,
            Self::Server(server) => server.fetch().await,
            Self::Keys(keys) => keys.fetch().await,
        }
    }

    /// Until the source may have another token, without being asked.
    pub(super) async fn change(&mut self) {
        match self {
            Self::File(file) => file.0.change().await,
            Self::Command(_) => std::future::pending().await,
            Self::Spiffe(_) => std::future::pending().await,
            Self::Identity(identity) => identity.change().await,
            Self::Server(server) => server.change().await,
            Self::Keys(keys) => keys.change().await,
        }
    }
}

/// Its name in messages.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{}", file.0.path().display()),
            // Its arguments may hold a secret.
            Self::Command(command) => f.write_str(command.program()),
            Self::Spiffe(wanted) => write!(f, "{}", wanted.endpoint),
            Self::Identity(identity) => write!(f, "{}", identity.file().path().display()),
            Self::Server(server) => write!(f, "{}", server.url()),
            Self::Keys(keys) => write!(f, "{keys}"),
        }
    }
}

impl FileSource {
    async fn fetch(&mut self) -> Result<Token, SourceError> {
        // Enough to tell what is too long from a line end.
        let text = self.0.read(TOKEN_BYTES_MAX + 2).await?;
        Ok(Token {
            value: Material::Secret(token::without_line_end(text).map_err(SourceError::Unusable)?),
            expires: None,
        })
    }
}
