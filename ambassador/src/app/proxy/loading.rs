//! The configuration file, read and checked beside a running proxy: on a thread
//! of its own, so that no file makes the proxy wait, or ends it.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::config::{self, Checked, Mistakes};
use crate::control::Fingerprint;

/// How long that may take. A file of the greatest length takes a second.
const LOADED_WITHIN: Duration = Duration::from_secs(10);

/// What was in the file.
pub(super) struct Loaded {
    /// Taken before it was read.
    pub content: Fingerprint,
    /// What it means.
    pub checked: Result<Checked, Mistakes>,
}

/// Loads one file at a time.
#[derive(Default)]
pub(super) struct Loader {
    /// The thread that has not come to an end in time.
    late: Option<JoinHandle<()>>,
}

impl Loader {
    /// Loads a file, or says why that does not come to an end.
    pub(super) fn load(&mut self, file: &Path) -> Result<Loaded, String> {
        let file = file.to_owned();
        self.within(LOADED_WITHIN, move || Loaded {
            content: Fingerprint::of(&file),
            checked: config::load(&file),
        })
    }

    fn within<T: Send + 'static>(
        &mut self,
        within: Duration,
        load: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        self.late.take_if(|late| late.is_finished());
        if self.late.is_some() {
            return Err("an earlier load has not finished".to_owned());
        }
        let (sender, loaded) = sync_channel(1);
        let thread = thread::Builder::new().name("config".into()).spawn(move || {
            // Nobody waits any more where it took too long.
            let _ = sender.send(load());
        });
        let thread = thread.map_err(|error| format!("no thread can be started: {error}"))?;
        match loaded.recv_timeout(within) {
            Ok(loaded) => Ok(loaded),
            Err(RecvTimeoutError::Disconnected) => Err("reading it has failed".to_owned()),
            Err(RecvTimeoutError::Timeout) => {
                self.late = Some(thread);
                Err(format!("loading takes longer than {within:?}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const NOW: Duration = Duration::from_millis(1);
    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn a_reading_that_hangs_is_given_up_and_stays_the_only_one() {
        let mut loader = Loader::default();
        let (go_on, hangs) = channel::<()>();
        let hang = move || hangs.recv().is_ok();
        assert!(loader.within(NOW, hang).unwrap_err().contains("longer"));
        let mut second = || loader.within(SOON, || 2);
        assert!(second().unwrap_err().contains("earlier"));
        drop(go_on);
        while second().is_err() {
            thread::yield_now();
        }
        assert_eq!(second(), Ok(2));
    }

    #[test]
    fn a_reading_that_panics_is_an_error() {
        let mut loader = Loader::default();
        let read = loader.within(SOON, || panic!("as a parser may"));
        assert_eq!(read, Err::<(), _>("reading it has failed".to_owned()));
        assert_eq!(loader.within(SOON, || 1), Ok(1));
    }
}
