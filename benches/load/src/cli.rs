//! The command line.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::failure::Failure;
use crate::protocol::{Protocol, SIZE_MAX};
use crate::run::{self, Close, Reuse};
use crate::{crosscheck, serve};

/// The load generator and the upstream of the latency benchmark.
#[derive(Debug, Parser)]
#[command(name = "ambassador-load", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be the upstream: say `ready ADDRESS`, then answer until a signal comes
    Serve(Serve),
    /// Generate load, then print one JSON object
    Run(Box<Run>),
    /// Compare with what wrk and h2load measure of the same upstream
    Crosscheck(Crosscheck),
}

#[derive(Debug, Args)]
struct Serve {
    /// Where to listen; port 0 for any.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Answer opaque 16-byte requests, not HTTP.
    #[arg(long)]
    tcp: bool,
    /// Stay on this CPU.
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
}

#[derive(Debug, Args)]
struct Run {
    /// Where to connect to.
    #[arg(long, value_name = "ADDR")]
    to: SocketAddr,
    /// The `host` field; ADDR without it.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// What the path has before the size.
    #[arg(long, value_name = "P", default_value = "")]
    path_prefix: String,
    /// A further header field; may be repeated.
    #[arg(long = "header", value_name = "K: V", value_parser = field)]
    fields: Vec<String>,
    /// Bytes per answer.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=SIZE_MAX))]
    size: u64,
    /// Connections, and requests at the same time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    #[command(flatten)]
    load: Load,
    /// A connection per request.
    #[arg(long)]
    new_connections: bool,
    /// Let connect() wait for its end, so that its time is that of a whole
    /// handshake. Elsewhere epoll waits.
    #[arg(long, requires = "new_connections")]
    blocking_connect: bool,
    /// How to end connections.
    #[arg(long, value_enum, default_value = "reset")]
    close: Close,
    /// Speak the opaque protocol of `serve --tcp`.
    #[arg(long, conflicts_with_all = ["host", "path_prefix", "fields"])]
    tcp: bool,
    /// Speak TLS with a server whose certificate, for NAME, is from an authority
    /// in this file. Each connection begins with a full handshake.
    #[arg(long, value_name = "FILE", requires = "host", conflicts_with = "tcp")]
    tls: Option<PathBuf>,
    /// Load that counts.
    #[arg(long, value_name = "S", value_parser = positive_seconds)]
    seconds: Duration,
    /// Load before that.
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "0")]
    warmup: Duration,
    /// Say `begin` and `end` on standard output, each on a line, when the load
    /// that counts does.
    #[arg(long)]
    announce: bool,
    /// Own delay in microseconds from which on the generator is called late.
    #[arg(long, value_name = "US", default_value_t = 1000)]
    late_after: u64,
    /// Stay on this CPU.
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Load {
    /// Each connection asks again as soon as it has its answer.
    #[arg(long)]
    closed: bool,
    /// This many requests per second, whatever the answers do.
    #[arg(long, value_name = "R")]
    rate: Option<NonZeroU64>,
}

#[derive(Debug, Args)]
struct Crosscheck {
    /// Connections of each generator.
    #[arg(long, value_name = "N", default_value_t = 64)]
    connections: u32,
    /// Bytes per answer.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    size: u64,
    /// Whole seconds per sample.
    #[arg(long, value_name = "S", default_value_t = 2)]
    seconds: u32,
    /// Samples of each, taken in turn.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Keep all of them on this CPU.
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// Keep the upstream on this one. Alone on a CPU that it fills, it lets no
    /// generator measure more than another.
    #[arg(long, value_name = "N")]
    upstream_cpu: Option<usize>,
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(serve) => serve::serve(&serve.settings()),
        Command::Run(run) => run::run(&run.settings()).and_then(|report| print(&report)),
        Command::Crosscheck(check) => {
            crosscheck::crosscheck(&check.settings()).map(|comparison| print!("{comparison}"))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ambassador-load: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn print(report: &run::Report) -> Result<(), Failure> {
    let stdout = std::io::stdout();
    serde_json::to_writer(stdout.lock(), report).map_err(Failure::system("printing the report"))?;
    println!();
    Ok(())
}

impl Serve {
    fn settings(&self) -> serve::Settings {
        serve::Settings {
            listen: self.listen,
            protocol: protocol(self.tcp),
            cpu: self.cpu,
        }
    }
}

impl Run {
    fn settings(&self) -> run::Settings {
        run::Settings {
            to: self.to,
            protocol: protocol(self.tcp),
            host: self.host.clone().unwrap_or_else(|| self.to.to_string()),
            path_prefix: self.path_prefix.clone(),
            fields: self.fields.clone(),
            tls: self.tls.clone(),
            size: self.size,
            connections: self.connections as usize,
            reuse: match self.new_connections {
                true => Reuse::NewConnections,
                false => Reuse::KeepAlive,
            },
            blocking_connect: self.blocking_connect,
            close: self.close,
            rate: self.load.rate,
            late_after: Duration::from_micros(self.late_after),
            warmup: self.warmup,
            length: self.seconds,
            announce: self.announce,
            cpu: self.cpu,
        }
    }
}

impl Crosscheck {
    fn settings(&self) -> crosscheck::Settings {
        crosscheck::Settings {
            connections: self.connections,
            size: self.size,
            seconds: self.seconds,
            rounds: self.rounds,
            cpu: self.cpu,
            upstream_cpu: self.upstream_cpu,
        }
    }
}

fn protocol(tcp: bool) -> Protocol {
    match tcp {
        true => Protocol::Tcp,
        false => Protocol::Http,
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn positive_seconds(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("nothing would be measured".to_owned()),
        seconds => Ok(seconds),
    }
}

fn field(text: &str) -> Result<String, String> {
    let has_name = text
        .split_once(':')
        .is_some_and(|(name, _)| !name.is_empty());
    if !has_name || text.contains(['\r', '\n']) {
        return Err("not of the form `name: value`".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_load_is_either_closed_or_of_a_rate() {
        let run = "load run --to 127.0.0.1:1 --size 1 --connections 1 --seconds 0.5";
        assert!(parse(run).is_err());
        assert!(parse(&format!("{run} --closed --rate 1")).is_err());
        assert!(parse(&format!("{run} --rate 0")).is_err());
        assert!(parse(&format!("{run} --rate 1")).is_ok());
        assert!(parse(&format!("{run} --closed")).is_ok());
    }

    #[test]
    fn fields_cannot_break_the_request() {
        assert_eq!(field("a: b"), Ok("a: b".to_owned()));
        assert!(field("a").is_err());
        assert!(field(": b").is_err());
        assert!(field("a: b\r\n").is_err());
    }
}
