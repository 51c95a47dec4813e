//! Where keys of AWS come from: the places in which its own tools look for them.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::aws::{self, RoleRequest};
use super::secret_file::SecretFile;
use super::token::{SourceError, Token};
use super::token_answer::AccessToken;
use super::token_server::{ServerFiles, change_of, needed};
use crate::clock;
use crate::control::NameService;
use crate::control::https::{HttpsClient, Limits};
use crate::credential::server_url::ServerUrl;
use crate::credential::settings::aws::{AwsKeySource, SESSION, SigV4, sts_of};
use crate::credential::settings::servers::Subject;
use crate::credential::sigv4::AwsKeys;
use crate::credential::token::{self, TokenMistake};
use crate::credential::{Material, Secret, aws_profile};

/// Longer than a file with the keys of many accounts.
const PROFILE_BYTES_MAX: usize = 256 << 10;

/// Gets keys of AWS.
pub(super) struct KeySource {
    settings: SigV4,
    /// The shared file, or the token that is shown to a server.
    file: Option<SecretFile>,
    /// The files of the connection to a server.
    connection: ServerFiles,
    names: Arc<NameService>,
}

impl KeySource {
    pub(super) fn new(settings: &SigV4, names: &Arc<NameService>) -> Self {
        let path = match &settings.keys {
            AwsKeySource::Profile { file, .. } => Some(file.clone()),
            AwsKeySource::WebIdentity => path_of("AWS_WEB_IDENTITY_TOKEN_FILE"),
            AwsKeySource::Exchange(exchange) => exchange.subject.file().cloned(),
            AwsKeySource::Container => path_of("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
            AwsKeySource::Env => None,
        };
        Self {
            settings: settings.clone(),
            file: path.as_deref().map(SecretFile::new),
            connection: match &settings.keys {
                AwsKeySource::Exchange(exchange) => ServerFiles::of(&exchange.server),
                _ => ServerFiles::default(),
            },
            names: Arc::clone(names),
        }
    }

    /// Gets keys.
    pub(super) async fn fetch(&mut self) -> Result<Token, SourceError> {
        let temporary = match &self.settings.keys {
            AwsKeySource::Env => return Ok(of_env()?.into()),
            AwsKeySource::Profile { profile, .. } => {
                let file = self.file.as_mut().ok_or(SourceError::Variable("file"))?;
                let text = needed(file, PROFILE_BYTES_MAX).await?;
                let keys = aws_profile::keys(&text, profile).map_err(SourceError::Profile)?;
                return Ok(keys.into());
            }
            AwsKeySource::WebIdentity => {
                let shown = self.token().await?;
                let shown = shown.ok_or(SourceError::Variable("AWS_WEB_IDENTITY_TOKEN_FILE"))?;
                let request = RoleRequest {
                    url: sts(&self.settings.scope.region)?,
                    role: variable("AWS_ROLE_ARN")?,
                    session: variable("AWS_ROLE_SESSION_NAME")
                        .unwrap_or_else(|_| SESSION.to_owned()),
                };
                let client = self.client().await?;
                aws::assume_role(&request, &shown, &client).await?
            }
            AwsKeySource::Exchange(exchange) => {
                let exchange = exchange.as_ref().clone();
                let shown = match &exchange.subject {
                    Subject::Spiffe(wanted) => AccessToken::of_svid(wanted).await?.value,
                    Subject::File(_) => self.token().await?.ok_or(TokenMistake::Empty)?,
                };
                let request = RoleRequest {
                    url: exchange.server.url,
                    role: exchange.role,
                    session: exchange.session,
                };
                let client = self.client().await?;
                aws::assume_role(&request, &shown, &client).await?
            }
            AwsKeySource::Container => {
                let url = agent()?;
                let shown = match self.token().await? {
                    Some(token) => Some(token),
                    None => variable("AWS_CONTAINER_AUTHORIZATION_TOKEN")
                        .ok()
                        .map(secret),
                };
                let client = self.client().await?;
                aws::of_container(&url, shown.as_ref(), &client).await?
            }
        };
        Ok(Token {
            value: Material::Keys(temporary.keys),
            expires: Some(clock::now() + temporary.lifetime),
        })
    }

    async fn token(&mut self) -> Result<Option<Secret>, SourceError> {
        let Some(file) = &mut self.file else {
            return Ok(None);
        };
        let text = needed(file, token::TOKEN_BYTES_MAX + 2).await?;
        let token = token::without_line_end(text);
        token
            .map(Some)
            .map_err(|mistake| SourceError::of_file(file.path(), mistake))
    }

    async fn client(&mut self) -> Result<HttpsClient, SourceError> {
        Ok(HttpsClient {
            names: Arc::clone(&self.names),
            tls: self.connection.config().await?,
            limits: Limits::default(),
        })
    }

    /// Until a file holds something else.
    pub(super) async fn change(&mut self) {
        tokio::select! {
            () = change_of(&mut self.file) => {}
            () = self.connection.change() => {}
        }
    }
}

impl From<AwsKeys> for Token {
    fn from(keys: AwsKeys) -> Self {
        Self {
            value: Material::Keys(keys),
            expires: None,
        }
    }
}

/// Its name in messages.
impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.settings.keys {
            AwsKeySource::Env => f.write_str("the environment"),
            AwsKeySource::Profile { file, .. } => write!(f, "{}", file.display()),
            AwsKeySource::WebIdentity => f.write_str("the Security Token Service of AWS"),
            AwsKeySource::Exchange(exchange) => write!(f, "{}", exchange.server.url),
            AwsKeySource::Container => f.write_str("the agent of the container"),
        }
    }
}

fn of_env() -> Result<AwsKeys, SourceError> {
    Ok(AwsKeys {
        id: variable("AWS_ACCESS_KEY_ID")?,
        secret: secret(variable("AWS_SECRET_ACCESS_KEY")?),
        token: variable("AWS_SESSION_TOKEN").ok().map(secret),
    })
}

/// That of a region, unless the environment names another one.
fn sts(region: &str) -> Result<ServerUrl, SourceError> {
    const NAME: &str = "AWS_ENDPOINT_URL_STS";
    let url = variable(NAME).unwrap_or_else(|_| sts_of(region));
    ServerUrl::parse(&url).map_err(|_| SourceError::Variable(NAME))
}

fn agent() -> Result<ServerUrl, SourceError> {
    const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    let relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").ok();
    let relative = relative.filter(|path| path.starts_with('/'));
    let url = match relative {
        Some(path) => format!("http://169.254.170.2{path}"),
        None => variable(FULL)?,
    };
    ServerUrl::parse(&url).map_err(|_| SourceError::Variable(FULL))
}

fn variable(name: &'static str) -> Result<String, SourceError> {
    let value = env::var(name).ok().filter(|value| !value.is_empty());
    value.ok_or(SourceError::Variable(name))
}

fn path_of(name: &'static str) -> Option<PathBuf> {
    variable(name).ok().map(PathBuf::from)
}

fn secret(text: String) -> Secret {
    Secret::from(text.into_bytes())
}
