//! Where keys of AWS come from: the places in which its own tools look for them.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::aws::{self, RoleRequest};
use super::secret_file::SecretFile;
use super::token::{SourceError, Token};
use super::token_server::{ServerFiles, change_of, needed};
use crate::clock;
use crate::control::NameService;
use crate::control::https::{HttpsClient, Limits};
use crate::credential::server_url::ServerUrl;
use crate::credential::settings::aws::{AwsKeySource, SigV4};
use crate::credential::settings::servers::TokenServer;
use crate::credential::sigv4::AwsKeys;
use crate::credential::token;
use crate::credential::{Material, Secret, aws_profile};

/// Longer than a file with the keys of many accounts.
const PROFILE_BYTES_MAX: usize = 256 << 10;

/// Gets keys of AWS.
pub(super) struct KeySource {
    settings: SigV4,
    /// The shared file, or the token that is shown to a server.
    file: Option<SecretFile>,
    names: Arc<NameService>,
}

impl KeySource {
    pub(super) fn new(settings: &SigV4, names: &Arc<NameService>) -> Self {
        let path = match &settings.keys {
            AwsKeySource::Profile { file, .. } => Some(file.clone()),
            AwsKeySource::WebIdentity => path_of("AWS_WEB_IDENTITY_TOKEN_FILE"),
            AwsKeySource::Container => path_of("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
            AwsKeySource::Env => None,
        };
        Self {
            settings: settings.clone(),
            file: path.as_deref().map(SecretFile::new),
            names: Arc::clone(names),
        }
    }

    /// Gets keys.
    pub(super) async fn fetch(&mut self) -> Result<Token, SourceError> {
        let temporary = match &self.settings.keys {
            AwsKeySource::Env => return Ok(of_env()?.into()),
            AwsKeySource::Profile { profile, .. } => {
                let profile = profile.clone();
                let text = self.shown(PROFILE_BYTES_MAX).await?;
                let text = text.ok_or(SourceError::Variable("file"))?;
                let keys = aws_profile::keys(&text, &profile).map_err(SourceError::Profile)?;
                return Ok(keys.into());
            }
            AwsKeySource::WebIdentity => {
                let shown = self.token().await?;
                let shown = shown.ok_or(SourceError::Variable("AWS_WEB_IDENTITY_TOKEN_FILE"))?;
                let request = RoleRequest {
                    url: sts(&self.settings.scope.region)?,
                    role: variable("AWS_ROLE_ARN")?,
                    session: variable("AWS_ROLE_SESSION_NAME")
                        .unwrap_or_else(|_| "ambassador".to_owned()),
                };
                let client = self.client(&request.url).await?;
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
                let client = self.client(&url).await?;
                aws::of_container(&url, shown.as_ref(), &client).await?
            }
        };
        Ok(Token {
            value: Material::Keys(temporary.keys),
            expires: Some(clock::now() + temporary.lifetime),
        })
    }

    async fn shown(&mut self, bytes_max: usize) -> Result<Option<Secret>, SourceError> {
        match &mut self.file {
            Some(file) => needed(file, bytes_max).await.map(Some),
            None => Ok(None),
        }
    }

    async fn token(&mut self) -> Result<Option<Secret>, SourceError> {
        let text = self.shown(token::TOKEN_BYTES_MAX + 2).await?;
        text.map(token::without_line_end)
            .transpose()
            .map_err(SourceError::Unusable)
    }

    async fn client(&self, url: &ServerUrl) -> Result<HttpsClient, SourceError> {
        let server = TokenServer {
            url: url.clone(),
            ca: None,
            certificate: None,
        };
        Ok(HttpsClient {
            names: Arc::clone(&self.names),
            tls: ServerFiles::of(&server).config().await?,
            limits: Limits::default(),
        })
    }

    /// Until the file holds something else.
    pub(super) async fn change(&mut self) {
        change_of(&mut self.file).await;
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
    let domain = match region.starts_with("cn-") {
        true => "amazonaws.com.cn",
        false => "amazonaws.com",
    };
    let default = format!("https://sts.{region}.{domain}/");
    let url = variable(NAME).unwrap_or(default);
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
