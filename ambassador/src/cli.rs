//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

/// A proxy for a program's outbound calls: captured by eBPF, forwarded over
/// io_uring.
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

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command with its outbound TCP captured, and nothing left behind
    Exec(Exec),
    /// Run as a service
    Run(Run),
    /// Check a configuration file: every mistake at once
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Print the JSON Schema of the configuration file
    Schema,
    /// Say what would happen to a destination, and why
    Explain {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// A URL or ip:port.
        destination: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the upstreams of a running ambassador
    Status {
        /// Whom to ask.
        #[command(flatten)]
        admin: Admin,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the upstreams of a running ambassador, live
    Top {
        /// Whom to ask.
        #[command(flatten)]
        admin: Admin,
    },
    /// Have a running ambassador finish what is in flight and end
    Drain {
        /// Whom to ask.
        #[command(flatten)]
        admin: Admin,
    },
    /// Say what this machine offers and lacks
    Doctor {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Remove what a killed `exec` has left behind.
        #[arg(long)]
        clean: bool,
        /// The cgroup whose hooks are looked at; default: our own.
        #[arg(long)]
        cgroup: Option<PathBuf>,
    },
}

/// `exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The configuration file; without one every destination is adopted, with
    /// retries and a circuit breaker.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Only look: no retries, no breaker, no limits, requests as they come,
    /// whatever the file says.
    #[arg(long)]
    pub observe: bool,
    /// Inject faults, as abort=503:10%,delay=200ms:5%,reset:1%, whatever the file
    /// says of them.
    #[arg(long, value_name = "SPEC")]
    pub fault: Option<String>,
    /// Inject them into calls to this host alone, with or without a port.
    #[arg(long, value_name = "HOST", requires = "fault")]
    pub fault_for: Option<String>,
    /// Say on standard error what was done per upstream.
    #[arg(long)]
    pub summary: bool,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The configuration file; without one the environment is read
    /// (`LISTEN_ADDR`, `UPSTREAM_HOST`, `UPSTREAM_PORT`).
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// A cgroup to capture, besides those in the file. May be repeated.
    #[arg(long)]
    pub cgroup: Vec<PathBuf>,
}

/// How a running ambassador is reached.
#[derive(Debug, Args)]
pub(crate) struct Admin {
    /// Its admin address: ip:port or unix:/path.
    #[arg(long = "admin", default_value = "127.0.0.1:15000")]
    pub address: String,
    /// The file with the token that allows changes over TCP.
    #[arg(long = "admin-token-file")]
    pub token_file: Option<PathBuf>,
}
