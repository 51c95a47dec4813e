//! The end-to-end latency benchmark. `cargo xtask bench` builds what it needs
//! and runs it; it needs root.
//!
//! Each variant (no proxy, a listener, capture by eBPF and by iptables, other
//! proxies) stands in a network namespace of its own, with an upstream of its
//! own, from the beginning to the end. Within a round the variants take turns,
//! so that what the machine does meanwhile meets them all; what is compared is
//! the ratio within a round.

mod client;
mod distribution;
mod guard;
mod measure;
mod memory;
mod neighbour;
mod peers;
mod process;
mod protocol;
mod report;
mod sample;
mod scenario;
mod standing;
mod start_up;
mod syscalls;
mod targets;
mod variant;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::guard::Guard;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::standing::Standing;
use crate::variant::Variant;

/// Compares the ambassador with no proxy, with iptables and with other proxies.
#[derive(Debug, Parser)]
#[command(name = "ambassador-bench")]
pub struct Arguments {
    /// Where the binaries are: ambassador, ambassador-load, the baselines.
    #[arg(long, value_name = "DIR")]
    binaries: PathBuf,
    /// Where the report goes.
    #[arg(long, value_name = "DIR", default_value = "benches/report")]
    out: PathBuf,
    /// A few scenarios, briefly: under two minutes.
    #[arg(long)]
    quick: bool,
    /// Rounds of each scenario.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Seconds of each sample.
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    seconds: f64,
    /// Only scenarios whose name has this.
    #[arg(long, value_name = "TEXT")]
    scenario: Option<String>,
    /// Only variants whose name has this, and `direct`.
    #[arg(long, value_name = "TEXT")]
    variant: Option<String>,
}

fn main() -> ExitCode {
    if let Some(done) = guard::serve() {
        return done;
    }
    let mut arguments = Arguments::parse();
    if arguments.quick {
        arguments.rounds = arguments.rounds.min(2);
        arguments.seconds = arguments.seconds.min(0.5);
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let load = binary(arguments, "ambassador-load")?;
    let open_files = process::raise_open_files().map_err(|error| error.to_string())?;
    let _guard = Guard::start().map_err(|error| format!("cgroups, which need root: {error}"))?;
    let mut report = Report::new(arguments);
    let scenarios = scenarios(arguments, open_files, &mut report);
    let variants = variants(arguments, &scenarios);
    let alone = |variant: &&Variant| variant.is_general() && variant.is_on_the_way();
    for variant in variants.iter().filter(alone) {
        eprintln!("memory of {}", variant.name());
        match memory::measure(*variant, &arguments.binaries, &load) {
            Ok(memory) => report.memory.push((*variant, memory)),
            Err(why) => eprintln!("  {why}"),
        }
    }
    report.start_up(&arguments.binaries, &load, arguments.rounds);
    let mut standing = Vec::new();
    for variant in variants {
        eprintln!("starting {}", variant.name());
        match Standing::start(variant, &arguments.binaries, &load) {
            Ok(started) => standing.push(started),
            Err(why) => report.skip(variant, &why),
        }
    }
    for standing in standing.iter().filter(|s| alone(&&s.variant)) {
        match syscalls::measure(standing, &load) {
            Ok(calls) => report.syscalls.push((standing.variant, calls)),
            Err(why) => eprintln!("system calls of {}: {why}", standing.variant.name()),
        }
    }
    for scenario in &scenarios {
        one(&mut report, scenario, &standing, arguments, &load);
    }
    report.finish(&arguments.out)
}

/// Takes the samples of one scenario.
fn one(
    report: &mut Report,
    scenario: &Scenario,
    standing: &[Standing],
    arguments: &Arguments,
    load: &Path,
) {
    for round in 0..arguments.rounds {
        eprintln!(
            "{}: round {} of {}",
            scenario.name,
            round + 1,
            arguments.rounds
        );
        for standing in standing.iter().filter(|s| scenario.suits(s.variant)) {
            match measure::sample(standing, scenario, arguments.seconds, load) {
                Ok(sample) => report.add(scenario, standing.variant, round, sample),
                Err(why) => eprintln!("  {}: {why}", standing.variant.name()),
            }
        }
    }
}

/// Those that are wanted, with what can be had here.
fn scenarios(arguments: &Arguments, open_files: u64, report: &mut Report) -> Vec<Scenario> {
    let all = match arguments.quick {
        true => scenario::quick(),
        false => scenario::all(),
    };
    let wanted = |scenario: &Scenario| {
        let text = arguments.scenario.as_deref();
        text.is_none_or(|text| scenario.name.contains(text))
    };
    let mut scenarios = Vec::new();
    for scenario in all.into_iter().filter(wanted) {
        let (name, asked) = (scenario.name, scenario.connections);
        let scenario = scenario.within(open_files);
        if scenario.connections < asked {
            report.note(format!(
                "{name}: {} connections, because a process may open {open_files} files",
                scenario.connections
            ));
        }
        scenarios.push(scenario);
    }
    scenarios
}

/// Those that are wanted, and have something to do.
fn variants(arguments: &Arguments, scenarios: &[Scenario]) -> Vec<Variant> {
    let wanted = |variant: &Variant| {
        let text = arguments.variant.as_deref();
        *variant == Variant::Direct || text.is_none_or(|text| variant.name().contains(text))
    };
    let quick = |variant: &Variant| !arguments.quick || variant.is_quick();
    let used = |variant: &Variant| scenarios.iter().any(|scenario| scenario.suits(*variant));
    let all = Variant::all().into_iter().filter(wanted);
    all.filter(quick).filter(used).collect()
}

fn binary(arguments: &Arguments, name: &str) -> Result<PathBuf, String> {
    let path = arguments.binaries.join(name);
    match path.exists() {
        true => Ok(path),
        false => Err(format!(
            "{} is missing: run `cargo xtask bench`",
            path.display()
        )),
    }
}
