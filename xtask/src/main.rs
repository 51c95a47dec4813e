//! The tasks of this repository: `cargo xtask TASK`.

mod bench;
mod build;
mod chaos;
mod demo;
mod dependencies;
mod dist;
mod docs;
mod fuzz;
mod image;
mod licences;
mod setup;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Failure;

/// The tasks of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building and testing need; quick when nothing is missing.
    Setup,
    /// Build `target/release/ambassador` with the BPF programs inside.
    Build,
    /// Show a captured curl, a flaky upstream, an outage and the recovery.
    Demo,
    /// Set up, build and run every test, those that need root included.
    Test {
        /// Passed to `cargo test`, for instance `-p ambassador-tests -- pool`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Compare latency and cost with no proxy, iptables and other proxies.
    Bench {
        /// Passed to the benchmark, for instance `--quick`; `--help` names them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Fail upstreams, reload and restart the proxy at random, and hold what it
    /// promises against what callers and upstreams see.
    Chaos {
        /// Passed on: `--minutes N`, `--seed S`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Fuzz every parser of what others send, with the corpus of the runs before.
    Fuzz {
        /// How long all targets together take; 0 runs what is known already.
        #[arg(long, default_value_t = 10)]
        minutes: u32,
        /// Afterwards, keep in `ambassador/fuzz/corpus` what reaches every branch
        /// that was reached.
        #[arg(long)]
        keep: bool,
    },
    /// Make the container image: an OCI layout in `target/dist/image`.
    Image,
    /// Make what a release consists of in `target/dist`: Debian package, image,
    /// list of what is inside, digests.
    Dist,
    /// Run every shell block of the documents in a clean clone.
    Docs,
    /// Hold the module table, file sizes and wording against the code.
    Tidy,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(task: Task) -> Result<(), Failure> {
    match task {
        Task::Setup => setup::everything(),
        Task::Build => build::release().map(|built| {
            println!("built {}", built.binary.display());
        }),
        Task::Demo => demo::show(),
        Task::Test { arguments } => test::all(&arguments),
        Task::Bench { arguments } => bench::run(&arguments),
        Task::Chaos { arguments } => chaos::run(&arguments),
        Task::Fuzz { minutes, keep } => fuzz::run(minutes).and_then(|()| match keep {
            true => fuzz::keep(),
            false => Ok(()),
        }),
        Task::Image => image::make().map(|layout| println!("made {}", layout.display())),
        Task::Dist => dist::make().map(|place| println!("made {}", place.display())),
        Task::Docs => docs::run(),
        Task::Tidy => tidy::check(),
    }
}
