//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::telemetry::ReasonLabel;

/// A proxy for the outbound calls of programs: captures them with eBPF, forwards
/// them over io_uring.
#[derive(Debug, Parser)]
#[command(name = "ambassador", version, about)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The command line itself, for the pages that are made from it.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Reads the word of a reason; a wrong one is answered with all of them.
fn reason() -> impl TypedValueParser<Value = ReasonLabel> {
    let words = ReasonLabel::ALL.iter().map(|reason| reason.as_str());
    PossibleValuesParser::new(words).try_map(|word| {
        let mut reasons = ReasonLabel::ALL.iter().copied();
        reasons.find(|reason| reason.as_str() == word).ok_or(word)
    })
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command with its outbound TCP captured; leave nothing behind
    Exec(Exec),
    /// Run as a service
    Run(Run),
    /// Check a configuration file and print every mistake at once
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Print the JSON Schema of the configuration file
    Schema,
    /// Say what would happen to a destination, and why; or what a reason means
    Explain(Explain),
    /// Show the upstreams of a running ambassador
    Status {
        /// The running ambassador.
        #[command(flatten)]
        admin: Admin,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the upstreams of a running ambassador, once a second
    Top {
        /// The running ambassador.
        #[command(flatten)]
        admin: Admin,
    },
    /// Say what happened to a request that has failed, step by step
    Why(WhyArguments),
    /// Let a running ambassador finish its requests in flight and end
    Drain {
        /// The running ambassador.
        #[command(flatten)]
        admin: Admin,
    },
    /// Say what this machine has and lacks
    Doctor {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Remove what killed proxies have left behind.
        #[arg(long)]
        clean: bool,
        /// The cgroup whose hooks are checked; default: that of this process.
        #[arg(long)]
        cgroup: Option<PathBuf>,
    },
}

/// `exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The configuration file. Without one every destination is adopted: it
    /// becomes an upstream with the default policies.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Capture, count and log only: no retries, no circuit breaker, no limits,
    /// requests unchanged, whatever the file says.
    #[arg(long)]
    pub observe: bool,
    /// Inject faults, as abort=503:10%,delay=200ms:5%,reset:1%, instead of those of
    /// the file.
    #[arg(long, value_name = "SPEC")]
    pub fault: Option<String>,
    /// Inject faults only into calls to this host, with or without a port.
    #[arg(long, value_name = "HOST", requires = "fault")]
    pub fault_for: Option<String>,
    /// Print on standard error what was done for each upstream.
    #[arg(long)]
    pub summary: bool,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The configuration file. Without one the environment configures one upstream
    /// (`LISTEN_ADDR`, `UPSTREAM_HOST`, `UPSTREAM_PORT`).
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// A cgroup to capture in addition to those of the file. May be repeated.
    #[arg(long)]
    pub cgroup: Vec<PathBuf>,
}

/// `explain`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The configuration file.
    #[arg(long, required_unless_present = "reason")]
    pub config: Option<PathBuf>,
    /// A URL or ip:port.
    #[arg(required_unless_present = "reason")]
    pub destination: Option<String>,
    /// Say what this reason of a failed request means, who is at fault and what to do.
    #[arg(long, value_name = "WORD", value_parser = reason())]
    #[arg(conflicts_with_all = ["config", "destination"])]
    pub reason: Option<ReasonLabel>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArguments {
    /// The `x-request-id` of the request, or its URL.
    #[arg(value_name = "REQUEST-ID|URL")]
    pub asked: String,
    /// The running ambassador.
    #[command(flatten)]
    pub admin: Admin,
    /// Show so many at most, the newest first.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub max: u16,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// How a running ambassador is reached.
#[derive(Debug, Args)]
pub(crate) struct Admin {
    /// The admin address of the ambassador: ip:port or unix:/path.
    #[arg(long = "admin", default_value = "127.0.0.1:15000")]
    pub address: String,
    /// A file with the token that changes over TCP need.
    #[arg(long = "admin-token-file")]
    pub token_file: Option<PathBuf>,
}
