//! The same load from `wrk` and `h2load`, beside ours: where they disagree,
//! something is measured wrong.

mod theirs;

use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::failure::Failure;
use crate::process;

/// What to compare.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Connections of each generator.
    pub connections: u32,
    /// Bytes per answer.
    pub size: u64,
    /// Per sample.
    pub seconds: u32,
    /// Samples of each.
    pub rounds: u32,
    /// The CPU for the generators.
    pub cpu: Option<usize>,
    /// The CPU for the upstream.
    pub upstream_cpu: Option<usize>,
}

/// A closed loop, as one program saw it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Answers per second.
    pub requests_per_second: f64,
    /// Mean latency, in microseconds. Times the rate it gives the connections,
    /// in a closed loop. Not so for wrk, which has its own idea of when a request
    /// begins, and adds what it believes that it omitted.
    pub mean_us: f64,
}

/// The programs, ours first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Ours,
    Wrk,
    H2load,
}

const PROGRAMS: [Program; 3] = [Program::Ours, Program::Wrk, Program::H2load];

/// Medians of all programs.
#[derive(Debug)]
pub struct Comparison(Vec<(Program, Sample)>);

/// Measures with each program in turn, for some rounds.
pub fn crosscheck(settings: &Settings) -> Result<Comparison, Failure> {
    let upstream = Upstream::start(settings.upstream_cpu)?;
    if let Some(cpu) = settings.cpu {
        // The generators are children, and stay there too.
        process::pin(cpu).map_err(Failure::system("pinning to a CPU"))?;
    }
    let mut samples = PROGRAMS.map(|_| Vec::new());
    for _ in 0..settings.rounds {
        for (program, samples) in PROGRAMS.iter().zip(&mut samples) {
            samples.push(program.measure(settings, &upstream.address)?);
        }
    }
    let medians = samples.map(|samples| Sample {
        requests_per_second: median(samples.iter().map(|sample| sample.requests_per_second)),
        mean_us: median(samples.iter().map(|sample| sample.mean_us)),
    });
    Ok(Comparison(PROGRAMS.into_iter().zip(medians).collect()))
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Program::Ours => "ambassador-load",
            Program::Wrk => "wrk",
            Program::H2load => "h2load",
        }
    }

    fn measure(self, settings: &Settings, address: &str) -> Result<Sample, Failure> {
        let mut command = match self {
            Program::Ours => this_program()?,
            Program::Wrk | Program::H2load => Command::new(self.name()),
        };
        let connections = settings.connections.to_string();
        let seconds = settings.seconds.to_string();
        let size = settings.size.to_string();
        let url = format!("http://{address}/{size}");
        let parse = match self {
            Program::Ours => {
                command.args(["run", "--closed", "--to", address, "--size", &size]);
                command.args(["--connections", &connections, "--seconds", &seconds]);
                theirs::ours
            }
            Program::Wrk => {
                command.args(["--threads", "1", "--connections", &connections]);
                command.args(["--duration", &seconds, &url]);
                theirs::wrk
            }
            Program::H2load => {
                command.args(["--h1", "--threads", "1", "--clients", &connections]);
                command.args(["--duration", &seconds, &url]);
                theirs::h2load
            }
        };
        let output = command.output().map_err(|error| self.said(&error))?;
        let text = String::from_utf8_lossy(&output.stdout);
        match parse(&text) {
            Some(sample) if output.status.success() => Ok(sample),
            _ => Err(self.said(&format_args!(
                "{}: {text}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            ))),
        }
    }

    fn said(self, what: &dyn fmt::Display) -> Failure {
        Failure::Other {
            program: self.name().to_owned(),
            said: what.to_string(),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "program          requests/s  mean us  ours/theirs")?;
        for (program, sample) in &self.0 {
            let name = program.name();
            let (rate, mean) = (sample.requests_per_second, sample.mean_us);
            let ratio = self.0[0].1.requests_per_second / rate;
            writeln!(f, "{name:<16} {rate:>10.0} {mean:>8.1} {ratio:>12.3}")?;
        }
        Ok(())
    }
}

/// Our upstream, in a process of its own; ended when dropped.
struct Upstream {
    child: Child,
    address: String,
}

impl Upstream {
    fn start(cpu: Option<usize>) -> Result<Self, Failure> {
        let mut command = this_program()?;
        command.args(["serve", "--listen", "127.0.0.1:0"]);
        if let Some(cpu) = cpu {
            command.args(["--cpu", &cpu.to_string()]);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Failure::system("starting the upstream"))?;
        let stdout = child.stdout.take();
        let mut upstream = Self {
            child,
            address: String::new(),
        };
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout)
                .read_line(&mut line)
                .map_err(Failure::system("starting the upstream"))?;
        }
        match line.trim_end().strip_prefix("ready ") {
            Some(address) => {
                upstream.address = address.to_owned();
                Ok(upstream)
            }
            None => Err(Program::Ours.said(&"the upstream is not ready")),
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // It has ended already, where that fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn this_program() -> Result<Command, Failure> {
    std::env::current_exe()
        .map(Command::new)
        .map_err(Failure::system("finding this program"))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
