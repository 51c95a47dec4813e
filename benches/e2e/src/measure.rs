//! Takes one sample of one variant in one scenario.

use std::path::Path;

use crate::process::{self, Machine};
use crate::sample::Sample;
use crate::scenario::{Load, Placement, Scenario};
use crate::standing::Standing;

/// More of the machine's time than this taken by others: the sample is taken
/// again.
const FOREIGN_MAX: f64 = 0.05;
/// How often, before the least disturbed one has to do.
const REPEATS_MAX: u32 = 3;
/// Load before the window, in seconds.
const WARM_UP: f64 = 0.3;

/// Takes one, again while the machine is busy with something else.
pub fn sample(
    standing: &Standing,
    scenario: &Scenario,
    seconds: f64,
    load: &Path,
) -> Result<Sample, String> {
    let mut best: Option<Sample> = None;
    for repeats in 0..=REPEATS_MAX {
        let mut sample = once(standing, scenario, seconds, load)?;
        sample.repeats = repeats;
        let undisturbed = sample.foreign <= FOREIGN_MAX;
        if best
            .as_ref()
            .is_none_or(|best| sample.foreign < best.foreign)
        {
            best = Some(sample);
        }
        if undisturbed {
            break;
        }
    }
    best.ok_or_else(|| "no sample".to_owned())
}

fn once(
    standing: &Standing,
    scenario: &Scenario,
    seconds: f64,
    load: &Path,
) -> Result<Sample, String> {
    let beside = match scenario.placement {
        Placement::One => 0,
        Placement::Apart => 1,
    };
    let (proxy, upstreams) = (standing.proxy_processes(), standing.upstream_processes());
    for pid in &upstreams {
        process::pin(*pid, beside);
    }
    let mut client = standing.client(load);
    client
        .args(["--to", &standing.address(scenario.protocol).to_string()])
        .args(scenario.protocol.of_client())
        .args(["--size", &scenario.size.to_string()])
        .args(["--connections", &scenario.connections.to_string()])
        .args([
            "--seconds",
            &seconds.to_string(),
            "--warmup",
            &WARM_UP.to_string(),
        ])
        .args(["--cpu", &beside.to_string()]);
    match scenario.load {
        Load::Closed => client.arg("--closed"),
        Load::Rate(rate) => client.args(["--rate", &rate.to_string()]),
    };
    if scenario.new_connections {
        client.arg("--new-connections");
        if scenario.connections == 1 {
            client.arg("--blocking-connect");
        }
    }
    let before = (Machine::now(), process::children_cpu_time());
    let proxy_before = process::cpu_time(&proxy);
    let upstream_before = process::cpu_time(&upstreams);
    let started = std::time::Instant::now();
    let output = client.output().map_err(|error| error.to_string())?;
    let took = started.elapsed();
    let proxy_time = process::cpu_time(&proxy).saturating_sub(proxy_before);
    let ours = proxy_time
        + process::cpu_time(&upstreams).saturating_sub(upstream_before)
        + process::children_cpu_time().saturating_sub(before.1);
    let (foreign, stolen) = Machine::now().foreign_since(&before.0, ours);
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let on_the_way = standing.variant.is_on_the_way();
    let sample = Sample::read(&[report], WARM_UP, on_the_way.then_some(proxy_time))?;
    Ok(Sample {
        foreign: (foreign + stolen).as_secs_f64() / (took.as_secs_f64() * cpus as f64),
        ..sample
    })
}
