//! The end-to-end latency benchmark. `cargo xtask bench` builds what it needs
//! and runs it; it needs root.
//!
//! Each variant (no proxy, a listener, capture by eBPF and by iptables, other
//! proxies) stands in a network namespace of its own, with an upstream of its
//! own, from the beginning to the end. Within a round the variants take turns,
//! so that what the machine does meanwhile meets them all; what is compared is
//! the ratio within a round.

mod background;
mod client;
mod distribution;
mod guard;
mod instructions;
mod measure;
mod memory;
mod neighbour;
mod peers;
mod placement;
mod process;
mod program;
mod protocol;
mod report;
mod sample;
mod scenario;
mod selection;
mod standing;
mod start_up;
mod syscalls;
mod targets;
mod tls_memory;
mod variant;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::guard::Guard;
use crate::instructions::Figures;
use crate::measure::How;
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
    /// Try two shards against one on a machine without CPUs for the load, too.
    #[arg(long)]
    force_scaling: bool,
    /// Only scenarios whose name has this.
    #[arg(long, value_name = "TEXT")]
    scenario: Option<String>,
    /// Only variants whose name has this, and `direct`.
    #[arg(long, value_name = "TEXT")]
    variant: Option<String>,
    /// Only counts instructions, and compares them with those that are kept.
    #[arg(long)]
    instructions: bool,
    /// Keeps the instructions that are counted now.
    #[arg(long, requires = "instructions")]
    keep: bool,
}

/// How often a sample is taken again. A quick run has no time for it.
const REPEATS_MAX: u32 = 3;

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
    let figures = match arguments.keep {
        true => Figures::Kept,
        false => Figures::Compared,
    };
    if arguments.instructions {
        return instructions::run(&arguments.binaries, figures);
    }
    let load = binary(arguments, "ambassador-load")?;
    let open_files = process::raise_open_files().map_err(|error| error.to_string())?;
    let _guard = Guard::start().map_err(|error| format!("cgroups, which need root: {error}"))?;
    let mut report = Report::new(arguments);
    let scenarios = selection::scenarios(arguments, open_files, &mut report);
    let variants = selection::variants(arguments, &scenarios);
    let alone = |variant: &&Variant| variant.is_general() && variant.is_on_the_way();
    for variant in variants.iter().filter(alone) {
        eprintln!("memory of {}", variant.name());
        match memory::measure(*variant, &arguments.binaries, &load) {
            Ok(memory) => report.memory.push((*variant, memory)),
            Err(why) => eprintln!("  {why}"),
        }
    }
    // A proxy is idle only after a while.
    let in_time = |variant: &&Variant| !arguments.quick || variant.is_ours();
    let with_tls = |variant: &&Variant| variant.speaks_tls() && in_time(variant);
    for variant in variants.iter().filter(with_tls) {
        eprintln!("memory of {}", variant.name());
        match tls_memory::measure(*variant, &arguments.binaries, &load) {
            Ok(memory) => report.tls_memory.push((*variant, memory)),
            Err(why) => eprintln!("  {why}"),
        }
    }
    match program::size_without_symbols(&arguments.binaries) {
        Ok(bytes) => report.program_size = Some(bytes),
        Err(why) => report.note(format!("the size of the program is not known: {why}")),
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
    let how = How {
        load: &load,
        seconds: arguments.seconds,
        repeats_max: if arguments.quick { 0 } else { REPEATS_MAX },
    };
    for scenario in &scenarios {
        one(&mut report, scenario, &standing, arguments.rounds, &how);
    }
    report.finish(&arguments.out)?;
    match arguments.quick {
        true => instructions::run(&arguments.binaries, figures),
        false => Ok(()),
    }
}

/// Takes the samples of one scenario.
fn one(
    report: &mut Report,
    scenario: &Scenario,
    standing: &[Standing],
    rounds: usize,
    how: &How<'_>,
) {
    for round in 0..rounds {
        eprintln!("{}: round {} of {rounds}", scenario.name, round + 1);
        for standing in standing.iter().filter(|s| scenario.suits(s.variant)) {
            match measure::sample(standing, scenario, how) {
                Ok(sample) => report.add(scenario, standing.variant, round, sample),
                Err(why) => eprintln!("  {}: {why}", standing.variant.name()),
            }
        }
    }
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
