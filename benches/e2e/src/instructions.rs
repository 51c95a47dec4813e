//! Instructions of user space that one exchange costs the proxy, counted by
//! valgrind's callgrind, and compared with the figures that are kept.
//!
//! A count does not depend on who else uses the machine: what changes it is the
//! code. The proxy runs on epoll, as valgrind knows no io_uring, with one shard
//! and without privileges; one client sends one exchange after the other over
//! one connection. Two runs of different length differ by the exchanges alone.

mod certificates;
mod exchange;
mod http2;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ambassador_tests::program::Running;
use ambassador_tests::proxy::Scratch;
use ambassador_tests::{ports, wait};

use certificates::Certificates;
use exchange::Exchange;

/// Where the figures are kept, seen from the top of the repository.
const KEPT: &str = "benches/instructions.json";

/// Runs of each length.
const RUNS: usize = 3;

/// What callgrind's files begin with: one for each thread.
const OUT: &str = "callgrind.out";

/// What the name of the main thread's file ends with.
const FIRST_THREAD: &str = "-01";

/// Who the proxy runs as: nobody, who needs no privileged helper.
const NOBODY: &str = "65534";

/// How long valgrind may take to start the proxy, and to end it.
const WITHIN: Duration = Duration::from_secs(60);

/// What becomes of the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figures {
    /// Compared with those that are kept.
    Compared,
    /// Kept in their place.
    Kept,
}

/// Counts each exchange, shows the figures, and compares or keeps them.
///
/// # Errors
/// What has failed; which exchanges cost more than they may be off, or are new. A gain is told, so that somebody keeps it.
pub fn run(binaries: &Path, figures: Figures) -> Result<(), String> {
    let kept = kept()?;
    let mut now = BTreeMap::new();
    let mut dearer = Vec::new();
    println!("instructions of user space for each exchange (callgrind, epoll)");
    for exchange in Exchange::ALL {
        let count = count(binaries, exchange)?;
        let before = kept.get(exchange.name()).copied();
        let change = before.map(|before| count as f64 / before as f64 - 1.0);
        let told = match change {
            None => "new".to_owned(),
            Some(change) if change < -exchange.tolerance() => {
                format!("{:+.2} %: `--keep` keeps that", change * 100.0)
            }
            Some(change) => format!("{:+.2} %", change * 100.0),
        };
        println!("  {:<24} {count:>8}  {told}", exchange.name());
        if change.is_none_or(|change| change > exchange.tolerance()) {
            dearer.push(exchange.name());
        }
        now.insert(exchange.name(), count);
    }
    match figures {
        Figures::Kept => {
            let text = serde_json::to_string_pretty(&now).map_err(|error| error.to_string())?;
            fs::write(KEPT, text + "\n").map_err(|error| format!("{KEPT}: {error}"))
        }
        Figures::Compared if dearer.is_empty() => Ok(()),
        Figures::Compared => Err(format!(
            "by {KEPT}, these cost more: {}; where that is meant, \
             `cargo xtask bench --instructions --keep` keeps the figures",
            dearer.join(", ")
        )),
    }
}

fn kept() -> Result<BTreeMap<String, u64>, String> {
    match fs::read(KEPT) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| format!("{KEPT}: {error}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(format!("{KEPT}: {error}")),
    }
}

/// Of several runs of each length the cheapest count: what is not the exchanges'
/// own only adds to a run.
fn count(binaries: &Path, exchange: Exchange) -> Result<u64, String> {
    let cheapest = |exchanges| {
        (0..RUNS)
            .map(|_| total(binaries, exchange, exchanges))
            .try_fold(u64::MAX, |least, run| run.map(|run| run.min(least)))
    };
    let (shorter, longer) = exchange.lengths();
    let beside = cheapest(shorter)?;
    Ok(cheapest(longer)?.saturating_sub(beside) / (longer - shorter))
}

/// Instructions of a whole run with so many exchanges.
fn total(binaries: &Path, exchange: Exchange, exchanges: u64) -> Result<u64, String> {
    let scratch = Scratch::new();
    // Valgrind writes there as nobody.
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(scratch.path(), open).map_err(|error| error.to_string())?;
    let listen = ports::free();
    let certificates = Certificates::new(&scratch);
    let endpoints = exchange
        .serve(&certificates)
        .map_err(|error| error.to_string())?;
    let admin = ports::free();
    let config = scratch.file("counted.yaml", &exchange.config(listen, admin, &endpoints));
    let out = scratch.path().join(OUT);
    let log = fs::File::create(scratch.path().join("log")).map_err(|error| error.to_string())?;
    let mut proxy = Running::start(&mut valgrind(
        &binaries.join("ambassador"),
        &config,
        &out,
        log,
    )?);
    wait::eventually("the listener", WITHIN, || {
        std::net::TcpStream::connect(("127.0.0.1", listen)).is_ok()
    });
    exchange
        .repeat(listen, exchanges, &certificates)
        .map_err(|error| format!("{}: {error}", exchange.name()))?;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(proxy.id() as i32).ok_or("no process")?,
        rustix::process::Signal::TERM,
    )
    .map_err(|error| error.to_string())?;
    proxy.wait(WITHIN);
    busiest_thread(scratch.path()).map_err(|error| format!("callgrind: {error}"))
}

/// The total of the shard's thread, which has done the most of all but the first,
/// which starts the proxy: what the others do goes by the time.
fn busiest_thread(directory: &Path) -> io::Result<u64> {
    let mut most = None;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(OUT) && !name.ends_with(FIRST_THREAD) {
            let text = fs::read_to_string(entry.path())?;
            let mut totals = text
                .lines()
                .filter_map(|line| line.strip_prefix("totals: "));
            most = most.max(totals.next().and_then(|total| total.parse().ok()));
        }
    }
    most.ok_or_else(|| io::Error::other("it has told no total"))
}

fn valgrind(program: &Path, config: &Path, out: &Path, log: fs::File) -> Result<Command, String> {
    let errors = log.try_clone().map_err(|error| error.to_string())?;
    let mut command = Command::new("setpriv");
    command
        .args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}")])
        .args(["--clear-groups", "valgrind", "--tool=callgrind"])
        .arg("--separate-threads=yes")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args(["run", "--config"])
        .arg(config)
        .env("AMBASSADOR_BACKEND", "epoll")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    Ok(command)
}
