//! A file that holds a secret: read when it is asked for, and looked at for changes.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};

use crate::clock;
use crate::control::certificates::{LOOK_EVERY, Stamps};
use crate::control::reading::Reader;
use crate::credential::Secret;
use crate::workload::named;

/// A file that holds a secret.
pub(super) struct SecretFile {
    path: PathBuf,
    reader: Reader,
    /// How much of it is read at most, and what was.
    bytes_max: usize,
    content: Fingerprint,
    /// Its state before it was read.
    state: LookedAt,
}

/// What a file held, in 64 bits; `None`: it could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint(Option<u64>);

/// The state of a file, and what it is worth.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct LookedAt {
    stamps: Stamps,
    /// It was changed so shortly before that one more change may not show.
    is_fresh: bool,
}

impl SecretFile {
    /// The file at this path; nothing is read yet.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            reader: Reader::default(),
            bytes_max: 0,
            content: Fingerprint(None),
            state: LookedAt::default(),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds, `bytes_max` bytes at most.
    ///
    /// # Errors
    /// As those of [`named::read`], and `TimedOut`.
    pub(super) async fn read(&mut self, bytes_max: usize) -> io::Result<Secret> {
        self.bytes_max = bytes_max;
        let (state, read) = self.look_and_read().await;
        (self.state, self.content) = (state, Fingerprint::of(&read));
        read
    }

    /// Until it holds something else than what was read.
    pub(super) async fn change(&mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if !self.state.is_fresh && self.look().await == self.state {
                continue;
            }
            let (state, read) = self.look_and_read().await;
            self.state = state;
            if Fingerprint::of(&read) != self.content {
                return;
            }
        }
    }

    /// Looked at before it is read, so that no change is lost in between.
    async fn look_and_read(&self) -> (LookedAt, io::Result<Secret>) {
        let state = self.look().await;
        let (path, bytes_max) = (self.path.clone(), self.bytes_max);
        let read = move || named::read(&path, bytes_max).map(Secret::from);
        (state, self.reader.read(read).await)
    }

    /// A file system that does not answer says nothing of a change.
    async fn look(&self) -> LookedAt {
        let path = self.path.clone();
        let look = move || Ok(LookedAt::of(&path));
        let looked = self.reader.read(look).await;
        looked.unwrap_or_else(|_| self.state.clone())
    }
}

impl LookedAt {
    fn of(path: &PathBuf) -> Self {
        let stamps = Stamps::of(std::iter::once(path));
        let is_fresh = stamps.are_newer_than((clock::unix_ms() / 1_000).saturating_sub(2));
        Self { stamps, is_fresh }
    }
}

impl Fingerprint {
    fn of(read: &io::Result<Secret>) -> Self {
        Self(read.as_ref().ok().map(|content| {
            let mut hasher = DefaultHasher::new();
            content.expose().hash(&mut hasher);
            hasher.finish()
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Also where neither its size nor, to the clock of its file system, its time tells.
    #[test]
    fn what_is_written_over_shortly_after_is_seen() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        runtime.block_on(async {
            let mut file = SecretFile::new(&path);
            for round in 0..20 {
                fs::write(&path, format!("t0ken-{round:02}")).unwrap();
                assert_eq!(
                    file.read(100).await.unwrap().expose(),
                    format!("t0ken-{round:02}").as_bytes()
                );
                fs::write(&path, format!("n3w-{round:04}")).unwrap();
                assert!(file.state.is_fresh || file.look().await != file.state);
            }
            file.change().await;
            assert_eq!(file.read(100).await.unwrap().expose(), b"n3w-0019");
            fs::remove_file(&path).unwrap();
            file.change().await;
            assert!(file.read(100).await.is_err() && !file.state.is_fresh);
        });
    }

    #[test]
    fn a_file_is_fresh_for_a_while() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "t0ken").unwrap();
        let state = LookedAt::of(&path);
        assert!(state.is_fresh);
        assert!(!state.stamps.are_newer_than(clock::unix_ms() / 1_000 + 1));
        assert!(!LookedAt::of(&directory.path().join("none")).is_fresh);
    }
}
