//! Answers many callers with one round of questions, so that more callers cost
//! the rest of the program no more.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Between the beginnings of two rounds.
const APART: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Rounds<T> {
    last: Mutex<Option<Round<T>>>,
}

#[derive(Debug)]
struct Round<T> {
    begun: Instant,
    /// `None`: it goes on, or who asked has given up.
    answer: Option<T>,
}

impl<T: Clone> Rounds<T> {
    /// What a round gives that begins after this call; one that others wait for
    /// too, where there is one.
    pub(super) async fn join(&self, ask: impl AsyncFnOnce() -> T) -> T {
        let called = Instant::now();
        let mut last = self.last.lock().await;
        if let Some(Round { begun, answer }) = &*last {
            match answer {
                Some(answer) if *begun >= called => return answer.clone(),
                _ => sleep_until(*begun + APART).await,
            }
        }
        *last = Some(Round {
            begun: Instant::now(),
            answer: None,
        });
        let answer = ask().await;
        if let Some(round) = &mut *last {
            round.answer = Some(answer.clone());
        }
        answer
    }
}

impl<T> Default for Rounds<T> {
    fn default() -> Self {
        Self {
            last: Mutex::const_new(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn those_who_ask_together_share_a_round_that_began_after_all_of_them() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (rounds, asked) = (Rounds::default(), Cell::new(0));
        let ask = async || {
            asked.set(asked.get() + 1);
            tokio::task::yield_now().await;
            asked.get()
        };
        runtime.block_on(async {
            let first = Instant::now();
            let (a, b, c) = tokio::join!(rounds.join(ask), rounds.join(ask), rounds.join(ask));
            // The first round had begun when the others asked.
            assert_eq!((a, b, c), (1, 2, 2));
            assert_eq!(rounds.join(ask).await, 3);
            assert!(first.elapsed() >= 2 * APART);
        });
    }

    #[test]
    fn who_gives_up_leaves_the_round_to_the_next() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let rounds = Rounds::default();
        runtime.block_on(async {
            let (first, asked) = (Instant::now(), Cell::new(0));
            for _ in 0..100 {
                let gives_up = rounds.join(async || {
                    asked.set(asked.get() + 1);
                    std::future::pending().await
                });
                assert!(
                    tokio::time::timeout(Duration::ZERO, gives_up)
                        .await
                        .is_err()
                );
            }
            let rounds_at_most = first.elapsed().as_nanos() / APART.as_nanos() + 1;
            assert!(asked.get() <= rounds_at_most, "{}", asked.get());
            assert_eq!(rounds.join(async || 1).await, 1);
        });
    }
}
