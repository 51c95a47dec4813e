//! What the demo shows, act by act. An act that does not go as it tells is a
//! failure of the demo.

pub mod capture;
pub mod figures;
pub mod flaky;
pub mod outage;
pub mod recovery;

use crate::demo::curl::{self, Answer};
use crate::demo::paint::Paint;
use crate::demo::scene::Scene;
use crate::demo::upstream::Upstream;
use crate::workspace::Failure;

/// The label of the demo's upstream in metrics.
const UPSTREAM: (&str, &str) = ("upstream", "demo");

/// Where the acts are played.
pub struct Stage {
    /// The proxy and the cgroup that it captures.
    pub scene: Scene,
    /// Where calls end up.
    pub upstream: Upstream,
    /// How it is shown.
    pub paint: Paint,
}

impl Stage {
    /// Runs curl in the captured cgroup.
    fn calls(&self, arguments: &[&str]) -> Result<Vec<Answer>, Failure> {
        curl::calls(self.scene.command("curl"), arguments)
    }
}

/// Goes on only if what was told is so.
fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    match holds {
        true => Ok(()),
        false => Err(Failure::Check(vec![otherwise()])),
    }
}

/// How many of the answers have this status and this reason; an empty one is
/// that of an answer of the upstream.
fn count(answers: &[Answer], status: u16, reason: &str) -> usize {
    let wanted = |answer: &&Answer| answer.status == status && answer.reason == reason;
    answers.iter().filter(wanted).count()
}
