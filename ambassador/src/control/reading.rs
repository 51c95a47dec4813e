//! Reads files on a thread of its own, because a path may lead to a file system
//! that never answers.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

/// How long a read may take.
const READ_WITHIN: Duration = Duration::from_secs(2);

/// Reads on threads of its own, one after the other: those that hang are no
/// more than there are readers.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    /// Taken by the thread that reads.
    turn: Arc<Semaphore>,
    within: Duration,
}

impl Default for Reader {
    fn default() -> Self {
        Self::within(READ_WITHIN)
    }
}

impl Reader {
    /// One whose reads may take so long.
    pub(super) fn within(within: Duration) -> Self {
        Self {
            turn: Arc::new(Semaphore::new(1)),
            within,
        }
    }

    /// What `read` gives; `TimedOut` where that takes too long, or an earlier
    /// one still does.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let in_turn = async {
            let turn = Arc::clone(&self.turn).acquire_owned().await;
            let (sender, answer) = oneshot::channel();
            thread::Builder::new().name("file".into()).spawn(move || {
                // Who asked may have given up.
                let _ = sender.send(read());
                drop(turn);
            })?;
            answer
                .await
                .unwrap_or_else(|_| Err(io::Error::other("reading it has failed")))
        };
        match timeout(self.within, in_turn).await {
            Ok(read) => read,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn one_that_hangs_holds_up_nobody_else() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (answer, hangs) = mpsc::channel::<()>();
        runtime.block_on(async {
            let (stuck, other) = (Reader::default(), Reader::default());
            let hanging = stuck.read(move || {
                let _ = hangs.recv();
                Ok(1)
            });
            let late = |read: io::Result<i32>| read.unwrap_err().kind() == io::ErrorKind::TimedOut;
            let (hanging, read) = tokio::join!(hanging, other.read(|| Ok(2)));
            assert!(late(hanging));
            assert_eq!(read.unwrap(), 2);
            // No second thread beside one that hangs.
            assert!(late(stuck.read(|| Ok(3)).await));
            drop(answer);
            assert_eq!(stuck.read(|| Ok(4)).await.unwrap(), 4);
            assert!(
                stuck
                    .read::<i32>(|| panic!("as a reader may"))
                    .await
                    .is_err()
            );
            assert_eq!(stuck.read(|| Ok(5)).await.unwrap(), 5);
        });
    }
}
