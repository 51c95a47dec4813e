//! A server that gives tokens, and the files with which it is asked.

use std::sync::Arc;

use super::oauth2::{self, ClientProof};
use super::secret_file::SecretFile;
use super::token::{SourceError, Token};
use super::token_answer::AccessToken;
use super::token_exchange;
use crate::control::NameService;
use crate::control::certificates::{BYTES_MAX, KEY_BYTES_MAX};
use crate::control::https::{HttpsClient, Limits};
use crate::credential::Secret;
use crate::credential::server_url::ServerUrl;
use crate::credential::settings::servers::{
    ClientAuth, ClientCredentials, Subject, TokenExchange, TokenServer,
};
use crate::credential::signing_key::SigningKey;
use crate::credential::token::{self, TOKEN_BYTES_MAX};
use crate::route::tls::{Ca, Tls};
use crate::tls::{self, Files};

/// What is asked for.
pub(super) enum Grant {
    /// A token for the client itself.
    ClientCredentials(ClientCredentials),
    /// A token for another one.
    Exchange(TokenExchange),
}

/// Asks a server for tokens.
pub(super) struct ServerSource {
    grant: Grant,
    /// The secret or the key of the client, or the token that is exchanged.
    shown: Option<SecretFile>,
    files: ServerFiles,
    names: Arc<NameService>,
}

/// The files of the connection.
#[derive(Default)]
pub(super) struct ServerFiles {
    ca: Option<SecretFile>,
    cert: Option<SecretFile>,
    key: Option<SecretFile>,
}

impl ServerSource {
    pub(super) fn new(grant: Grant, names: &Arc<NameService>) -> Self {
        let shown = match &grant {
            Grant::ClientCredentials(settings) => settings.client_auth.file(),
            Grant::Exchange(settings) => settings.subject.file(),
        };
        Self {
            shown: shown.map(|path| SecretFile::new(path)),
            files: ServerFiles::of(grant.server()),
            grant,
            names: Arc::clone(names),
        }
    }

    /// Where it is asked.
    pub(super) fn url(&self) -> &ServerUrl {
        &self.grant.server().url
    }

    /// Gets a token.
    pub(super) async fn fetch(&mut self) -> Result<Token, SourceError> {
        let client = HttpsClient {
            names: Arc::clone(&self.names),
            tls: self.files.config().await?,
            limits: Limits::default(),
        };
        let shown = match &mut self.shown {
            Some(file) => Some(needed(file, TOKEN_BYTES_MAX.max(KEY_BYTES_MAX)).await?),
            None => None,
        };
        let token = match &self.grant {
            Grant::ClientCredentials(settings) => {
                let proof = match (&settings.client_auth, shown) {
                    (ClientAuth::PrivateKeyJwt(named), Some(text)) => {
                        let key = SigningKey::from_pem(&text);
                        let unusable = |error| SourceError::of_file(&named.file, error);
                        ClientProof::Key(key.map_err(unusable)?)
                    }
                    (_, Some(text)) => ClientProof::Secret(self.without_line_end(text)?),
                    (_, None) => ClientProof::Certificate,
                };
                oauth2::fetch(settings, &proof, &client).await?
            }
            Grant::Exchange(settings) => {
                let subject = match (&settings.subject, shown) {
                    (Subject::Spiffe(wanted), _) => AccessToken::of_svid(wanted).await?.value,
                    (Subject::File(_), shown) => {
                        let text = shown.unwrap_or_else(|| Secret::from(Vec::new()));
                        self.without_line_end(text)?
                    }
                };
                token_exchange::fetch(settings, &subject, &client).await?
            }
        };
        Ok(token.into())
    }

    fn without_line_end(&self, text: Secret) -> Result<Secret, SourceError> {
        token::without_line_end(text).map_err(|mistake| match &self.shown {
            Some(file) => SourceError::of_file(file.path(), SourceError::Unusable(mistake)),
            None => SourceError::Unusable(mistake),
        })
    }

    /// Until a file with which it is asked holds something else.
    pub(super) async fn change(&mut self) {
        tokio::select! {
            () = change_of(&mut self.shown) => {}
            () = self.files.change() => {}
        }
    }
}

impl Grant {
    fn server(&self) -> &TokenServer {
        match self {
            Self::ClientCredentials(settings) => &settings.server,
            Self::Exchange(settings) => &settings.server,
        }
    }
}

impl ServerFiles {
    pub(super) fn of(server: &TokenServer) -> Self {
        let certificate = server.certificate.as_ref();
        Self {
            ca: server.ca.as_deref().map(SecretFile::new),
            cert: certificate.map(|it| SecretFile::new(&it.cert)),
            key: certificate.map(|it| SecretFile::new(&it.key)),
        }
    }

    /// What the connection is encrypted with, as the files say now.
    pub(super) async fn config(&mut self) -> Result<Arc<rustls::ClientConfig>, SourceError> {
        let settings = Tls {
            ca: match &self.ca {
                Some(file) => Ca::File(file.path().to_owned()),
                None => Ca::System,
            },
            ..Tls::default()
        };
        let read = Files {
            identity: None,
            ca: content(&mut self.ca, BYTES_MAX).await?,
            cert: content(&mut self.cert, BYTES_MAX).await?,
            key: content(&mut self.key, KEY_BYTES_MAX).await?.map(Into::into),
            crl: None,
        };
        tls::https_config(&settings, &read).map_err(SourceError::Tls)
    }

    /// Until one of them holds something else.
    pub(super) async fn change(&mut self) {
        tokio::select! {
            () = change_of(&mut self.ca) => {}
            () = change_of(&mut self.cert) => {}
            () = change_of(&mut self.key) => {}
        }
    }
}

async fn content(
    file: &mut Option<SecretFile>,
    bytes_max: usize,
) -> Result<Option<Vec<u8>>, SourceError> {
    match file {
        Some(file) => Ok(Some(needed(file, bytes_max).await?.expose().to_vec())),
        None => Ok(None),
    }
}

pub(super) async fn needed(file: &mut SecretFile, bytes_max: usize) -> Result<Secret, SourceError> {
    let read = file.read(bytes_max).await;
    read.map_err(|error| SourceError::of_file(file.path(), error))
}

/// For ever where there is no file.
pub(super) async fn change_of(file: &mut Option<SecretFile>) {
    match file {
        Some(file) => file.change().await,
        None => std::future::pending().await,
    }
}
