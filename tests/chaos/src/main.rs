//! `cargo xtask chaos`: the real proxy between callers and upstreams of which
//! some always fail, reloaded and ended at random, by a schedule that the seed
//! makes. All the while this holds, or the run fails:
//!
//! - A GET, or a POST with a key, to an upstream with endpoints that are well
//!   gets their answer, whole and its own. What nobody can hide may show: a
//!   response that an endpoint cuts once its head has gone to the caller, and
//!   one that is no HTTP, as nobody knows what was done with the request.
//! - A POST without a key arrives at most once.
//! - Everything is answered in time, or ends with the proxy. After SIGKILL the
//!   next one starts at once, at the same address. New connections that SIGTERM
//!   turns away are counted and no failure: of some twenty ends one has one.
//! - With the load paused, requests sent, lines of the access log and the sum of
//!   the metrics agree, of each upstream that is still configured (one that left
//!   is forgotten by the metrics, and stays in the log); connections, descriptors
//!   and threads are those of a quiet proxy, and memory is what it was before.
//! - Reloads count as what they are, whatever the load.
//!
//! As root all of it happens in a network namespace of its own: a request that
//! another program of the machine sends to a port that was free a moment before
//! would be one too many.

mod answer;
mod caller;
mod endpoint;
mod fault;
mod gate;
mod ledger;
mod life;
mod random;
mod run;
mod schedule;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ambassador_tests::{Netns, os};
use clap::Parser;

/// Random faults, reloads and restarts, and what must hold all the while.
#[derive(Parser)]
#[command(name = "cargo xtask chaos")]
struct Arguments {
    /// How long it goes on, about.
    #[arg(long, default_value_t = 1)]
    minutes: u64,
    /// Makes the schedule; one of its own by default.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let by_time = now.map_or(0, |now| now.as_secs());
    let seed = arguments.seed.unwrap_or(by_time);
    println!("seed {seed}");
    let _namespace = match enter_namespace() {
        Ok(namespace) => namespace,
        Err(error) => {
            eprintln!("chaos: cannot enter a network namespace: {error}");
            return ExitCode::FAILURE;
        }
    };
    let time = Duration::from_secs(60 * arguments.minutes);
    let outcome = match run::run(seed, time) {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("chaos: cannot set the endpoints up: {error}");
            return ExitCode::FAILURE;
        }
    };
    let totals = outcome.totals;
    println!(
        "{} lives; {} requests answered as they should be, {} otherwise where they may, \
         {} left by their callers, {} lost with a proxy that was ended, {} turned away by SIGTERM",
        outcome.lives, totals.well, totals.excused, totals.left, totals.lost, totals.turned_away
    );
    match outcome.broken {
        None => {
            println!("every invariant held; seed {seed}");
            ExitCode::SUCCESS
        }
        Some(broken) => {
            eprintln!(
                "chaos: broken after {:.3} s: {}\nrepeat it with `cargo xtask chaos --minutes {} --seed {seed}`",
                broken.at, broken.what, arguments.minutes
            );
            ExitCode::FAILURE
        }
    }
}

/// Moves this thread, and what it starts, into a namespace of its own. Without
/// the right to do so it stays where it is.
fn enter_namespace() -> io::Result<Option<Netns>> {
    if !os::is_root() {
        return Ok(None);
    }
    let namespace = Netns::new();
    os::enter_network_namespace(File::open(namespace.path())?.as_fd())?;
    Ok(Some(namespace))
}
