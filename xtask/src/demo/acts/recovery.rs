//! The upstream comes back: one probe goes through, and the circuit closes.

use std::time::{Duration, Instant};

use super::{Stage, UPSTREAM, count, expect};
use crate::demo::DESTINATION;
use crate::demo::upstream::Script;
use crate::workspace::Failure;

/// Callers at the same moment.
const CALLERS: usize = 50;

/// How long the circuit may take to close: time for a few probes, as its `sleep`
/// is two seconds.
const PATIENCE: Duration = Duration::from_secs(8);

/// What was seen of it.
pub struct Recovery {
    /// When the upstream could answer again.
    pub began: Instant,
    /// The probes that it took.
    pub probes: f64,
}

/// Lets many callers loose on a circuit that is to be probed, then again.
pub fn play(stage: &Stage) -> Result<Recovery, Failure> {
    let Stage {
        upstream, paint, ..
    } = stage;
    paint.title("4. The upstream is back, and one call finds out");
    println!("It answers again, a little slowly. The circuit sleeps for two seconds after");
    println!("it opened. Then {CALLERS} callers come at the same moment.\n");
    let began = Instant::now();
    upstream.play(Script::Slow);
    let parallel = format!("-Z --parallel-immediate --parallel-max {CALLERS}");
    let url = format!("http://{DESTINATION}/hello?[1-{CALLERS}]");
    let mut arguments: Vec<&str> = parallel.split(' ').collect();
    arguments.push(&url);

    let before = probes(stage)?;
    loop {
        wait_until_it_may_be_probed(stage, began)?;
        let before = probes(stage)?;
        paint.command(&format!("curl {parallel} '{url}'"));
        let answers = stage.calls(&arguments)?;
        paint.row("let through, as the probe", probes(stage)? - before);
        paint.row(
            "answered `circuit-open`",
            count(&answers, 503, "circuit-open"),
        );
        paint.row("answered 200", count(&answers, 200, ""));
        if count(&answers, 200, "") > 0 {
            break;
        }
    }

    println!("\nThe probe was answered, the circuit is closed.\n");
    upstream.play(Script::Well);
    paint.command(&format!("curl {parallel} '{url}'"));
    let answers = stage.calls(&arguments)?;
    let well = count(&answers, 200, "");
    paint.row("answered 200", format!("{well} of {CALLERS}"));
    expect(well == CALLERS, || {
        format!("after the probe {well} of {CALLERS} were answered 200")
    })?;
    Ok(Recovery {
        began,
        probes: probes(stage)? - before,
    })
}

/// How often the circuit was half open, for a probe each time.
fn probes(stage: &Stage) -> Result<f64, Failure> {
    let labels = [UPSTREAM, ("to", "half-open")];
    let metrics = stage.scene.admin().metrics()?;
    Ok(metrics.sum("ambassador_breaker_transitions_total", &labels))
}

/// Asks `/upstreams` until the circuit no longer refuses the next call.
fn wait_until_it_may_be_probed(stage: &Stage, since: Instant) -> Result<(), Failure> {
    loop {
        let breaker = stage.scene.admin().breaker(UPSTREAM.1)?;
        expect(since.elapsed() < PATIENCE, || {
            format!("no call has been answered since the upstream is back: {breaker}")
        })?;
        if breaker["refuses_for_seconds"].is_null() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
