//! How many instructions each case takes: the same on a quiet machine and a
//! busy one.
//!
//! This program runs itself under a counter, with one case a few times and with
//! more of them, and divides the difference; what starting and preparing cost
//! drops out. `perf` counts where the machine has such a counter, else
//! valgrind's callgrind. With neither it says so and ends well.

use std::fmt;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::time::Duration;

use ambassador_micro::Measure;

/// Runs of a case in the shorter and in the longer count.
const FEW: u64 = 100;
const MANY: u64 = 1_100;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, case, times] = arguments.as_slice()
        && flag == "--run"
    {
        return run(case, times);
    }
    let Some(counter) = Counter::find() else {
        println!("instructions: skipped, neither perf nor valgrind counts them here");
        return ExitCode::SUCCESS;
    };
    println!("instructions per run, counted by {counter}");
    let wanted = arguments.iter().find(|word| !word.starts_with('-'));
    let mut names = Names(Vec::new());
    ambassador_micro::all(&mut names);
    let names = names
        .0
        .iter()
        .filter(|name| wanted.is_none_or(|wanted| name.contains(wanted)));
    for name in names {
        match counter.per_run(name) {
            Some(count) => println!("{name:<28} {count:>8}"),
            None => println!("{name:<28} {:>8}", "?"),
        }
    }
    ExitCode::SUCCESS
}

/// Runs one case so many times, for a counter that watches.
fn run(case: &str, times: &str) -> ExitCode {
    let Ok(times) = times.parse() else {
        return ExitCode::FAILURE;
    };
    let mut repeat = Repeat {
        case,
        times,
        found: false,
    };
    ambassador_micro::all(&mut repeat);
    match repeat.found {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// What counts instructions here.
#[derive(Clone, Copy)]
enum Counter {
    Perf,
    Callgrind,
}

impl Counter {
    fn find() -> Option<Self> {
        let counts = |counter: &Self| counter.count(&["true"]).is_some();
        [Self::Perf, Self::Callgrind].into_iter().find(counts)
    }

    /// Instructions of one run of a case.
    fn per_run(self, case: &str) -> Option<u64> {
        let program = std::env::current_exe().ok()?;
        let program = program.to_str()?;
        let count = |times: u64| self.count(&[program, "--run", case, &times.to_string()]);
        Some(count(MANY)?.checked_sub(count(FEW)?)? / (MANY - FEW))
    }

    /// Instructions of a whole command.
    fn count(self, command: &[&str]) -> Option<u64> {
        let counter: &[&str] = match self {
            Self::Perf => &["perf", "stat", "-x,", "-e", "instructions:u"],
            Self::Callgrind => &[
                "valgrind",
                "--tool=callgrind",
                "--callgrind-out-file=/dev/null",
            ],
        };
        let output = Command::new(counter[0])
            .args(&counter[1..])
            .args(command)
            .output()
            .ok()?;
        if !output.status.success() {
            return None;
        }
        let said = String::from_utf8_lossy(&output.stderr);
        said.lines().find_map(|line| self.read(line))
    }

    /// The count, where this line of the counter's report has it.
    fn read(self, line: &str) -> Option<u64> {
        match self {
            // "1234,,instructions:u,...", or "<not supported>" in front.
            Self::Perf => line.split_once(",,instructions")?.0.parse().ok(),
            // "==1== Collected : 1234".
            Self::Callgrind => line.split_once("Collected : ")?.1.trim().parse().ok(),
        }
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Perf => "perf",
            Self::Callgrind => "callgrind",
        })
    }
}

/// Collects the names of the cases.
struct Names(Vec<String>);

impl Measure for Names {
    fn each<R>(&mut self, name: &str, _: impl FnMut() -> R) {
        self.0.push(name.to_owned());
    }

    fn batch(&mut self, name: &str, _: impl FnMut(u64) -> Duration) {
        self.0.push(name.to_owned());
    }
}

/// Runs one case and nothing else.
struct Repeat<'a> {
    case: &'a str,
    times: u64,
    found: bool,
}

impl Measure for Repeat<'_> {
    fn each<R>(&mut self, name: &str, mut once: impl FnMut() -> R) {
        if name == self.case {
            self.found = true;
            for _ in 0..self.times {
                black_box(once());
            }
        }
    }

    fn batch(&mut self, name: &str, mut many: impl FnMut(u64) -> Duration) {
        if name == self.case {
            self.found = true;
            many(self.times);
        }
    }
}
