//! Fetches one credential again and again: ahead of its end, when its source has
//! changed, and with growing waits after a failure.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant as TokioInstant, sleep_until, timeout};

use crate::clock;
use crate::credential::Credential;
use crate::telemetry::{CredentialOutcome, Registry};
use crate::upstream::credential::IssueOutcome;

use super::KeptCredential;
use super::source::Source;
use super::token::SourceError;

/// How long a fetch may take.
const FETCH_WITHIN: Duration = Duration::from_secs(15);
/// The wait after the first failure; it doubles with each further one.
const AGAIN_MIN: Duration = Duration::from_secs(1);
/// The longest wait after a failure.
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// How often a failure is logged.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// One credential that is kept fetched.
pub(super) struct Refresh {
    /// Whose it is, and where it goes.
    pub kept: KeptCredential,
    /// Where it comes from.
    pub source: Source,
    /// Where it is counted.
    pub registry: Arc<Registry>,
}

impl Refresh {
    /// Fetches it for as long as it is polled.
    pub(super) async fn keep(mut self) {
        let mut failures = 0;
        let mut next_warning = None;
        loop {
            let outcome = self.fetch().await;
            let wait = match &outcome {
                Ok(lifetime) => {
                    failures = 0;
                    next_warning = None;
                    lifetime.map(|lifetime| ahead_of(lifetime, clock::random_u64()))
                }
                Err(Failure { why, retry_after }) => {
                    failures += 1;
                    let now = clock::now();
                    if next_warning.is_none_or(|at| at <= now) {
                        let upstream = &self.kept.upstream;
                        tracing::warn!(%upstream, %why, "cannot fetch the credential");
                        next_warning = Some(now + WARN_EVERY);
                    }
                    let own = after_failure(failures, clock::random_u64());
                    Some(own.max(retry_after.unwrap_or_default()))
                }
            };
            let due = wait.map(|wait| TokioInstant::now() + wait);
            let due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.source.change() => {}
                () = self.kept.credential.refused() => {}
            }
        }
    }

    /// Fetches it once, and publishes what comes of that. Gives how long it is valid;
    /// `None`: until there is another one.
    async fn fetch(&mut self) -> Result<Option<Duration>, Failure> {
        let fetched = match timeout(FETCH_WITHIN, self.source.fetch()).await {
            Ok(fetched) => fetched,
            Err(_) => Err(SourceError::Late(FETCH_WITHIN)),
        };
        let credential = &self.kept.credential;
        let issued = fetched.and_then(|token| {
            let made = Credential::made_of(&credential.auth, token.value);
            Ok((made.map_err(SourceError::Unusable)?, token.expires))
        });
        let (outcome, result) = match issued {
            Ok((made, expires)) => {
                let outcome = match credential.issue(made, expires) {
                    IssueOutcome::Replaced => CredentialOutcome::Refreshed,
                    IssueOutcome::Unchanged => CredentialOutcome::Unchanged,
                };
                let left = expires.map(|at| at.saturating_duration_since(clock::now()));
                (outcome, Ok(left))
            }
            Err(error) => {
                let why = format!("{} {error}", self.source);
                credential.fail(&why);
                let retry_after = error.retry_after();
                (CredentialOutcome::Failed, Err(Failure { why, retry_after }))
            }
        };
        self.registry.credential_refresh(self.kept.label, outcome);
        result
    }
}

/// A fetch that gave nothing.
struct Failure {
    why: String,
    /// How long the source wants to be left alone.
    retry_after: Option<Duration>,
}

/// How long to wait with the next fetch of what is valid for `lifetime`: a fifth to a
/// quarter of it is left then, for a source that is away, and not all ask at once.
fn ahead_of(lifetime: Duration, random: u64) -> Duration {
    let share = 0.75 + 0.05 * unit(random);
    lifetime.mul_f64(share).max(AGAIN_MIN)
}

/// How long to wait after so many failures in a row: half of the bound at least, as a
/// source that fails at once must not be asked at once.
fn after_failure(failures: u32, random: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let bound = AGAIN_MIN.saturating_mul(1 << doublings).min(AGAIN_MAX);
    bound.mul_f64(0.5 + 0.5 * unit(random))
}

/// From 0 to 1; 53 bits are what a float holds exactly.
fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fetched_before_it_ends_and_not_by_all_at_once() {
        let hour = Duration::from_secs(3_600);
        assert_eq!(ahead_of(hour, 0), Duration::from_secs(2_700));
        let last = ahead_of(hour, u64::MAX);
        assert!(last > Duration::from_secs(2_879) && last <= Duration::from_secs(2_880));
        // One that is over already is not asked for without a pause.
        assert_eq!(ahead_of(Duration::ZERO, 7), AGAIN_MIN);
    }

    #[test]
    fn a_source_that_fails_is_asked_less_and_less_often() {
        let seconds = |failures, random| after_failure(failures, random).as_secs_f64();
        let least: Vec<f64> = (1..=7).map(|failures| seconds(failures, 0)).collect();
        assert_eq!(least, [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]);
        let most: Vec<f64> = (1..=7)
            .map(|failures| seconds(failures, u64::MAX))
            .collect();
        for (most, bound) in most.into_iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]) {
            assert!(most > bound * 0.99 && most <= bound, "{most} of {bound}");
        }
        assert_eq!(after_failure(u32::MAX, 0), AGAIN_MAX / 2);
    }
}
