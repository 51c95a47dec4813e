//! One sample of one variant in one scenario.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::process::{self, Machine};
use crate::scenario::{Load, Placement, Scenario};
use crate::standing::Standing;
use crate::variant::Variant;

/// What is measured. Times in microseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// Answers in the window.
    pub requests: u64,
    /// Answers per second.
    pub per_second: f64,
    /// Latency, from when a request was due.
    pub p50: f64,
    /// The same.
    pub p99: f64,
    /// The same.
    pub p999: f64,
    /// The connect() call, where each request has a connection of its own.
    pub connect_p50: Option<f64>,
    /// The same.
    pub connect_p99: Option<f64>,
    /// Time of the proxy on a CPU, per request; none without a proxy.
    pub cpu: Option<f64>,
    /// Requests that the generator itself sent more than a millisecond late, of
    /// all; none in a closed loop.
    pub late: Option<f64>,
    /// Part of the machine's time that others had, and how often the sample was
    /// taken again for that.
    pub foreign: f64,
    /// The same.
    pub repeats: u32,
}

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
    let foreign = (foreign + stolen).as_secs_f64() / (took.as_secs_f64() * cpus as f64);
    read(&report, standing.variant, proxy_time, foreign)
}

fn read(
    report: &serde_json::Value,
    variant: Variant,
    proxy_time: Duration,
    foreign: f64,
) -> Result<Sample, String> {
    let errors = report["errors_total"].as_u64().unwrap_or(u64::MAX);
    let requests = report["requests"].as_u64().unwrap_or(0);
    if requests == 0 || errors * 1000 > requests {
        return Err(format!(
            "{errors} errors beside {requests} answers: {}",
            report["errors"]
        ));
    }
    // The proxy worked during the warm-up, too, and as much.
    let window = report["seconds"].as_f64().unwrap_or(1.0);
    let counted = requests as f64 * (window + WARM_UP) / window;
    let cpu = variant
        .is_on_the_way()
        .then(|| proxy_time.as_secs_f64() * 1e6 / counted);
    if cpu.is_some_and(|cpu| cpu < 0.1) {
        return Err("the proxy did nothing: requests went past it".to_owned());
    }
    let time = |place: &serde_json::Value, name: &str| place[name].as_f64();
    let latency = &report["latency"]["us"];
    let connect = &report["connect_call"]["us"];
    Ok(Sample {
        requests,
        per_second: report["requests_per_second"].as_f64().unwrap_or(0.0),
        p50: time(latency, "p50").unwrap_or(f64::NAN),
        p99: time(latency, "p99").unwrap_or(f64::NAN),
        p999: time(latency, "p99.9").unwrap_or(f64::NAN),
        connect_p50: time(connect, "p50"),
        connect_p99: time(connect, "p99"),
        cpu,
        late: report["open_loop"]["generator_late"]
            .as_f64()
            .map(|late| late / requests as f64),
        foreign,
        repeats: 0,
    })
}
