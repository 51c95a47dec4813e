//! Takes one sample of one variant in one scenario.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::background::Background;
use crate::client::Clients;
use crate::neighbour::Neighbour;
use crate::placement::Placement;
use crate::process::{self, Machine};
use crate::sample::Sample;
use crate::scenario::{Load, Scenario};
use crate::standing::Standing;

/// More of the machine's time than this taken by others: the sample is taken
/// again.
const FOREIGN_MAX: f64 = 0.05;
/// Load before the window, in seconds, and more of it for each connection: each
/// should have been used before.
const WARM_UP: f64 = 0.3;
const WARM_UP_OF_CONNECTION: f64 = 0.0001;

/// The part of its CPUs that a proxy has to use where saturation is meant.
const SATURATED: f64 = 0.9;

/// How samples are taken.
pub struct How<'a> {
    /// The load generator.
    pub load: &'a Path,
    /// The length of each.
    pub seconds: f64,
    /// How often one is taken again, before the least disturbed has to do.
    pub repeats_max: u32,
}

/// Takes one, again while the machine is busy with something else.
pub fn sample(standing: &Standing, scenario: &Scenario, how: &How<'_>) -> Result<Sample, String> {
    let mut best: Option<Sample> = None;
    for repeats in 0..=how.repeats_max {
        let mut sample = once(standing, scenario, how)?;
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

fn once(standing: &Standing, scenario: &Scenario, how: &How<'_>) -> Result<Sample, String> {
    let (of_clients, of_upstreams) = scenario.placement.of_load(process::cpus());
    let (proxy, upstreams) = (standing.proxy_processes(), standing.upstream_processes());
    for (pid, cpu) in upstreams.iter().zip(of_upstreams.iter().cycle()) {
        process::pin(*pid, *cpu);
    }
    let neighbour = scenario.busy_neighbour.then(Neighbour::start);
    let busy = || {
        neighbour
            .as_ref()
            .map_or(Duration::ZERO, Neighbour::cpu_time)
    };
    let machine = Machine::now();
    let before = (
        process::cpu_time(&proxy),
        process::cpu_time(&upstreams),
        process::children_cpu_time(),
        busy(),
    );
    let started = Instant::now();
    let background = scenario.beside.map(|beside| {
        let seconds = warm_up(scenario) + how.seconds;
        Background::start(standing, beside, seconds, how.load)
    });
    let clients = of_clients.iter();
    let clients = clients.map(|cpu| client(standing, scenario, how, *cpu));
    let mut clients = Clients::start(clients.collect());
    let (begin, end) = clients.during(|| process::cpu_time(&proxy))?;
    let reports = clients.reports()?;
    background.map_or(Ok(()), Background::end)?;
    let took = started.elapsed();
    let ours = process::cpu_time(&proxy).saturating_sub(before.0)
        + process::cpu_time(&upstreams).saturating_sub(before.1)
        + process::children_cpu_time().saturating_sub(before.2)
        + busy().saturating_sub(before.3);
    let (foreign, stolen) = Machine::now().foreign_since(&machine, ours);
    let on_the_way = standing.variant.is_on_the_way();
    let proxy_time = on_the_way.then(|| end.saturating_sub(begin));
    let sample = Sample::read(&reports, proxy_time)?;
    if scenario.placement == Placement::Scaling && !scenario.is_only_tried {
        is_saturated(standing.variant.shards(), &sample)?;
    }
    Ok(Sample {
        foreign: (foreign + stolen).as_secs_f64() / (took.as_secs_f64() * process::cpus() as f64),
        ..sample
    })
}

/// Shards that wait for the load say nothing of how many requests they can take.
fn is_saturated(shards: usize, sample: &Sample) -> Result<(), String> {
    match sample.proxy_cpus {
        Some(busy) if busy < SATURATED * shards as f64 => Err(format!(
            "the load was too little: {busy:.2} CPUs of {shards} were busy"
        )),
        _ => Ok(()),
    }
}

/// Load before the window, in seconds.
fn warm_up(scenario: &Scenario) -> f64 {
    WARM_UP + WARM_UP_OF_CONNECTION * f64::from(scenario.connections)
}

/// A generator on a CPU, not started.
fn client(standing: &Standing, scenario: &Scenario, how: &How<'_>, cpu: usize) -> Command {
    let mut client = standing.client(how.load, scenario.protocol);
    client
        .args(["--size", &scenario.size.to_string()])
        .args(["--connections", &scenario.connections.to_string()])
        .args(["--seconds", &how.seconds.to_string()])
        .args(["--warmup", &warm_up(scenario).to_string()])
        .args(["--cpu", &cpu.to_string()])
        .arg("--announce");
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
    client
}
