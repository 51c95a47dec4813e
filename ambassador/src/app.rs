//! The commands, and how their failures become exit codes.

mod advice;
mod answers;
mod captured;
mod exec;
mod figures;
mod introduction;
mod log;
mod memory;
mod names;
mod open_listeners;
mod proxy;
mod run;
mod usage;

use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde::Deserialize;

use crate::addr::BindAddr;
use crate::capture::{self, iptables};
use crate::cli::{Admin, Cli, Command, Explain, WhyArguments};
use crate::config::{self, Mistakes, explain};
use crate::control::client::{Client, FailureQuery, Output};
use crate::doctor;
use crate::printable::{self, Lines};
use crate::ring;
use crate::telemetry::reasons::Explanation;
use crate::workload;
use crate::workload::helper::{Duties, NamedByRules};
use crate::workload::signals::outlive_stray_signals;

/// EX_USAGE of sysexits.h.
const USAGE: u8 = 64;
/// EX_UNAVAILABLE: a needed service or privilege is missing.
const UNAVAILABLE: u8 = 69;
/// EX_CONFIG: the configuration is bad.
const CONFIG: u8 = 78;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line asks for what makes no sense.
    Usage(String),
    /// Something the machine does not offer.
    Unavailable(String),
    /// The configuration.
    Config(Mistakes),
}

/// What this process is to do where a proxy has started it for its own ends: as
/// its privileged helper, or as a loader of programs. Every binary that captures
/// asks this first.
pub fn as_part_of_a_proxy() -> Option<ExitCode> {
    let first = std::env::args_os().nth(1).unwrap_or_default();
    if [
        capture::LOADER_COMMAND,
        workload::helper::SUBCOMMAND,
        workload::commands::SUBCOMMAND,
    ]
    .map(OsStr::new)
    .contains(&&*first)
    {
        // At worst they end as before.
        let _ = outlive_stray_signals();
    }
    if first == OsStr::new(capture::LOADER_COMMAND) {
        return Some(capture::loader_main());
    }
    if first == OsStr::new(workload::commands::SUBCOMMAND) {
        return Some(workload::commands::serve(|text| {
            let checked = config::load_str("the configuration", text).map_err(io::Error::other)?;
            Ok(proxy::commands_of(&checked))
        }));
    }
    if first == OsStr::new(workload::helper::SUBCOMMAND) {
        return Some(workload::helper::serve(duties()));
    }
    None
}

/// What the privileged helper does for modules that it does not know.
fn duties() -> Duties {
    Duties {
        loader: capture::LOADER_COMMAND,
        targets_in: |text| {
            let checked = config::load_str("the configuration", text).map_err(io::Error::other)?;
            Ok(checked.capture.map_or_else(Vec::new, |it| it.targets))
        },
        named_by_iptables: |rules| {
            let rules: iptables::Rules = Deserialize::deserialize(rules)?;
            Ok(NamedByRules {
                cgroups: rules.cgroups,
                proxy_port: rules.proxy_port,
                mark: rules.exempt_mark,
            })
        },
        install_iptables: |netns, owner, rules| {
            let rules: iptables::Rules = serde_json::from_value(rules)?;
            let rules = iptables::Rules { owner, ..rules };
            let installed = iptables::install(&rules, netns, None);
            installed.map(drop).map_err(io::Error::other)
        },
        remove_iptables: iptables::remove,
        remove_token_prefix: |netns, port| netns.run(|| capture::unroute(None, port))?,
    }
}

/// Runs the command that the command line names.
pub fn main() -> ExitCode {
    if let Some(code) = as_part_of_a_proxy() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as Nothing;
            if error.use_stderr() && error.kind() != Nothing {
                eprintln!("{}", Lines(&usage::complaint(&error)));
                return ExitCode::from(USAGE);
            }
            // Nothing to do about a closed standard output.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{}", Lines(&failure.to_string()));
            ExitCode::from(failure.code())
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Exec(exec) => {
            outlive_stray_signals().map_err(unavailable("cannot handle signals"))?;
            log::start("warn");
            return exec::run(exec);
        }
        Command::Run(run) => {
            outlive_stray_signals().map_err(unavailable("cannot handle signals"))?;
            log::start("info");
            return run::run(run);
        }
        Command::Check { file } => check(&file)?,
        Command::Schema => print(&format!("{:#}", config::schema()))?,
        Command::Explain(asked) => explain(asked)?,
        Command::Status { admin, json } => {
            let output = if json { Output::Json } else { Output::Table };
            print(asked(client(admin)?.status(output))?.trim_end())?;
        }
        Command::Top { admin } => asked(client(admin)?.top())?,
        Command::Why(why) => return self::why(why),
        Command::Drain { admin } => asked(client(admin)?.drain())?,
        Command::Doctor {
            json,
            clean,
            cgroup,
        } => return doctor(json, clean, cgroup),
    }
    Ok(ExitCode::SUCCESS)
}

fn check(file: &Path) -> Result<(), Failure> {
    let checked = config::load(file).map_err(Failure::Config)?;
    let nothing = config::Certificates::default();
    let certificates = config::Certificates::open(&checked, &file.display().to_string(), &nothing);
    certificates.map_err(Failure::Config)?;
    if !checked.warnings.is_empty() {
        eprintln!("{}", Lines(&checked.warnings.to_string()));
    }
    print(&format!("{}: ok", file.display()))
}

fn explain(asked: Explain) -> Result<(), Failure> {
    let (text, json) = match (asked.reason, asked.config, asked.destination) {
        (Some(reason), ..) => {
            let explanation = Explanation::of(reason);
            (explanation.to_string(), explanation.to_json())
        }
        (None, Some(config), Some(destination)) => {
            let checked = config::load(&config).map_err(Failure::Config)?;
            let explanation = explain::explain(&checked, &destination)
                .map_err(|bad| Failure::Usage(bad.to_string()))?;
            (explanation.to_string(), explanation.to_json())
        }
        (None, ..) => {
            let text = "explain: needs --reason, or --config and a destination";
            return Err(Failure::Usage(text.to_owned()));
        }
    };
    match asked.json {
        true => print(&printable::json(&format!("{json:#}"))),
        false => print(text.trim_end()),
    }
}

fn why(why: WhyArguments) -> Result<ExitCode, Failure> {
    let asked = FailureQuery::parse(&why.asked, why.max).map_err(Failure::Usage)?;
    let output = if why.json {
        Output::Json
    } else {
        Output::Table
    };
    let Some(text) = self::asked(client(why.admin)?.why(&asked, output))? else {
        eprintln!("{}", Lines(&asked.unknown()));
        return Ok(ExitCode::FAILURE);
    };
    print(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

fn doctor(json: bool, clean: bool, cgroup: Option<PathBuf>) -> Result<ExitCode, Failure> {
    if clean {
        for (leftover, removed) in doctor::clean() {
            match removed {
                Ok(()) => print(&format!("removed {leftover}"))?,
                Err(error) => print(&format!("cannot remove {leftover}: {error}"))?,
            }
        }
    }
    let (backend, why_not_ring) = ring::probe();
    let report = doctor::Report::of(&doctor::Facts {
        backend: backend.to_string(),
        why_not_ring,
        has_programs: capture::built_with_capture(),
        cgroup,
    });
    match json {
        true => {
            let json = report.json().map_err(unavailable("cannot write JSON"))?;
            print(&printable::json(&json))?;
        }
        false => print(report.to_string().trim_end())?,
    }
    Ok(match report.is_ready() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(UNAVAILABLE),
    })
}

fn client(admin: Admin) -> Result<Client, Failure> {
    let address = match admin.address.strip_prefix("unix:") {
        Some(path) => BindAddr::Unix(path.into()),
        None => match admin.address.parse::<SocketAddr>() {
            Ok(address) => BindAddr::Tcp(address),
            Err(_) => {
                let got = config::shown("--admin", &admin.address);
                let text = format!("--admin: must be ip:port or unix:/path, got {got}");
                return Err(Failure::Usage(text));
            }
        },
    };
    Ok(Client {
        admin: address,
        token_file: admin.token_file,
    })
}

fn asked<T>(result: Result<T, crate::control::client::ClientError>) -> Result<T, Failure> {
    result.map_err(|error| Failure::Unavailable(with_causes(&error)))
}

/// Prints a line; a reader that has gone away is none of our business.
fn print(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{}", Lines(text)) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(unavailable("cannot write to standard output")(error))
        }
        _ => Ok(()),
    }
}

/// Turns an error into "what was attempted: why it failed".
fn unavailable<E: Error>(what: impl fmt::Display) -> impl FnOnce(E) -> Failure {
    move |error| Failure::Unavailable(format!("{what}: {}", with_causes(&error)))
}

/// An error with what caused it, in one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = advice::without_number(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&advice::without_number(error));
        cause = error.source();
    }
    text
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Unavailable(_) => UNAVAILABLE,
            Self::Config(_) => CONFIG,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Unavailable(text) => write!(f, "ambassador: {text}"),
            Self::Config(mistakes) => f.write_str(mistakes.to_string().trim_end()),
        }
    }
}
