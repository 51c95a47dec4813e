//! Calls of curl, and what it says of the answers.

use std::process::Command;
use std::time::Duration;

use crate::workspace::{self, Failure};

/// What curl writes for each answer; see `--write-out` in its manual.
const FORMAT: &str = "%{http_code} %{time_total} %header{x-ambassador-reason}\\n";

/// No call takes longer, in seconds.
const PATIENCE: &str = "10";

/// One answer, as curl saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// From the start of the call to the end of the answer.
    pub time: Duration,
    /// `x-ambassador-reason`; empty where the upstream answered.
    pub reason: String,
}

/// Runs curl with these arguments, of which one is a URL; `?[1-9]` at its end
/// are nine calls over one connection. The first without an answer ends it.
pub fn calls(mut curl: Command, arguments: &[&str]) -> Result<Vec<Answer>, Failure> {
    curl.args(["-sS", "--fail-early", "-m", PATIENCE]);
    curl.args(["-o", "/dev/null", "-w", FORMAT]);
    let said = workspace::output(curl.args(arguments))?;
    let answers: Vec<_> = said.lines().filter_map(answer_in).collect();
    if answers.is_empty() || answers.len() != said.lines().count() {
        return Err(Failure::Check(vec![format!("curl said {said:?}")]));
    }
    Ok(answers)
}

/// What curl shows a person who calls with these arguments.
pub fn shown(mut curl: Command, arguments: &[&str]) -> Result<String, Failure> {
    curl.args(["-sS", "-m", PATIENCE]);
    workspace::output(curl.args(arguments))
}

/// The time that half of the answers took longer than.
pub fn median(answers: &[Answer]) -> Duration {
    let mut times: Vec<Duration> = answers.iter().map(|answer| answer.time).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The time of the slowest answer.
pub fn longest(answers: &[Answer]) -> Duration {
    let times = answers.iter().map(|answer| answer.time);
    times.max().unwrap_or_default()
}

fn answer_in(line: &str) -> Option<Answer> {
    let mut words = line.split(' ');
    Some(Answer {
        status: words.next()?.parse().ok()?,
        time: Duration::try_from_secs_f64(words.next()?.parse().ok()?).ok()?,
        reason: words.next().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_a_time_and_perhaps_a_reason() {
        let answer = answer_in("503 0.000061 circuit-open").unwrap();
        assert_eq!(
            (answer.status, answer.time),
            (503, Duration::from_micros(61))
        );
        assert_eq!(answer.reason, "circuit-open");
        let answer = answer_in("200 1.5 ").unwrap();
        assert_eq!((answer.status, answer.reason.as_str()), (200, ""));
        assert_eq!(answer_in("curl: (7)"), None);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let answers: Vec<_> = ["200 3 ", "200 1 ", "200 2 "]
            .into_iter()
            .filter_map(answer_in)
            .collect();
        assert_eq!(median(&answers), Duration::from_secs(2));
        assert_eq!(longest(&answers), Duration::from_secs(3));
    }
}
