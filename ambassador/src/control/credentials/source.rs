//! Where credentials come from.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Instant;
use crate::control::reading::Reader;
use crate::control::watch::{Directories, PreparedDirectories};
use crate::credential::Secret;
use crate::credential::settings::{Auth, TokenSource};
use crate::credential::token::{self, TOKEN_BYTES_MAX, TokenMistake};
use crate::workload::named;

/// How often a file is read again whose directory is watched: not every file system
/// tells of changes.
const CHECK_EVERY: Duration = Duration::from_secs(60);
/// The same where it cannot be watched.
const CHECK_UNWATCHED_EVERY: Duration = Duration::from_secs(1);

/// Where a credential comes from.
pub(super) enum Source {
    /// A file.
    File(FileSource),
}

/// What a source gives.
#[derive(Debug)]
pub(super) struct Token {
    /// The secret alone, without a scheme.
    pub value: Secret,
    /// Until when it is valid; `None`: until there is another one.
    pub expires: Option<Instant>,
}

/// A file that holds a token.
pub(super) struct FileSource {
    path: PathBuf,
    reader: Reader,
    /// `None`: they cannot be watched, or are not yet.
    directories: Option<Directories>,
}

/// Why there is no token. Tells nothing of what a source gave.
#[derive(Debug)]
pub(super) enum SourceError {
    /// The file cannot be read.
    Read(io::Error),
    /// What came cannot be sent.
    Unusable(TokenMistake),
    /// It took longer than that.
    Late(Duration),
}

impl Source {
    /// That of an upstream.
    pub(super) fn of(auth: &Auth) -> Self {
        match auth {
            Auth::Bearer(TokenSource::File(path))
            | Auth::Basic { password: path, .. }
            | Auth::Header { value: path, .. } => Self::File(FileSource::new(path)),
        }
    }

    /// Gets a token.
    ///
    /// # Errors
    /// There is none, or none that can be sent.
    pub(super) async fn fetch(&mut self) -> Result<Token, SourceError> {
        match self {
            Self::File(file) => file.fetch().await,
        }
    }

    /// Until the source may have another token, without being asked.
    pub(super) async fn change(&mut self) {
        match self {
            Self::File(file) => file.change().await,
        }
    }
}

/// Its name in messages.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{}", file.path.display()),
        }
    }
}

impl FileSource {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            reader: Reader::default(),
            directories: None,
        }
    }

    async fn fetch(&mut self) -> Result<Token, SourceError> {
        // Before it is read, so that no change is lost in between.
        if self.directories.is_none() {
            let watched = PreparedDirectories::of(&self.path);
            self.directories = watched.and_then(PreparedDirectories::start).ok();
        }
        let path = self.path.clone();
        // Enough to tell what is too long from a line end.
        let read = self.reader.read(move || {
            let bytes = named::read(&path, TOKEN_BYTES_MAX + 2)?;
            Ok(token::without_line_end(bytes))
        });
        let token = read.await;
        let token = token.map_err(SourceError::Read)?;
        let value = token.map_err(SourceError::Unusable)?;
        Ok(Token {
            value,
            expires: None,
        })
    }

    async fn change(&mut self) {
        let Some(directories) = &mut self.directories else {
            return tokio::time::sleep(CHECK_UNWATCHED_EVERY).await;
        };
        if let Ok(Err(error)) = tokio::time::timeout(CHECK_EVERY, directories.change()).await {
            let path = self.path.display();
            tracing::warn!(%path, %error, "this file is no longer watched, but read every second");
            self.directories = None;
        }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "cannot be read: {error}"),
            Self::Unusable(mistake) => write!(f, "{mistake}"),
            Self::Late(limit) => write!(f, "gives nothing within {limit:?}"),
        }
    }
}

impl std::error::Error for SourceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            Self::Unusable(mistake) => Some(mistake),
            Self::Late(_) => None,
        }
    }
}
