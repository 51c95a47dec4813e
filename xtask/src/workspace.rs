//! Where things are, and how programs are run from here.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why a task ended early; the text is for a person at a terminal.
#[derive(Debug)]
pub enum Failure {
    /// A program that had to succeed did not.
    Program {
        /// The command line.
        line: String,
        /// How it ended.
        outcome: String,
    },
    /// Something that only the user can supply is missing, and what to do.
    Missing(String),
    /// A check that this task makes found these mistakes.
    Check(Vec<String>),
    /// Reading or writing a file went wrong.
    File(PathBuf, std::io::Error),
}

impl Failure {
    /// 69 for what is missing, as the proxy itself uses it, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Missing(_) => 69,
            _ => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Program { line, outcome } => write!(out, "`{line}` {outcome}"),
            Failure::Missing(what) => out.write_str(what),
            Failure::Check(mistakes) => {
                for mistake in mistakes {
                    writeln!(out, "{mistake}")?;
                }
                write!(out, "{} to put right", mistakes.len())
            }
            Failure::File(path, error) => write!(out, "{}: {error}", path.display()),
        }
    }
}

/// The top directory of the repository.
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

/// Where cargo puts what it builds.
pub fn target_directory() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(path) => root().join(path),
        None => root().join("target"),
    }
}

/// A program run from the top directory. System directories and cargo's own
/// are searched too, since `PATH` of a bare root shell may lack them.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(find(program).unwrap_or_else(|| PathBuf::from(program)));
    command.current_dir(root()).env("PATH", search_path());
    command
}

/// Runs to the end with the terminal passed through.
pub fn run(command: &mut Command) -> Result<(), Failure> {
    let outcome = match command.status() {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => format!("ended with {status}"),
        Err(error) => format!("could not be started: {error}"),
    };
    Err(Failure::Program {
        line: line_of(command),
        outcome,
    })
}

/// Runs to the end and gives what it wrote to its standard output.
pub fn output(command: &mut Command) -> Result<String, Failure> {
    let outcome = match command.output() {
        Ok(output) if output.status.success() => {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Ok(output) => {
            let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            format!("ended with {}: {complaint}", output.status)
        }
        Err(error) => format!("could not be started: {error}"),
    };
    Err(Failure::Program {
        line: line_of(command),
        outcome,
    })
}

/// Makes `directory`, after whatever was at `top`, itself or above it, is gone.
pub fn fresh_directory(directory: &Path, top: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(top) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure::File(top.to_path_buf(), error));
        }
        _ => {}
    }
    std::fs::create_dir_all(directory)
        .map_err(|error| Failure::File(directory.to_path_buf(), error))
}

/// Writes a file, and makes the directories above it.
pub fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let failed = |error| Failure::File(path.to_path_buf(), error);
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    std::fs::write(path, content).map_err(failed)
}

/// The digest of a file, in hexadecimal.
pub fn sha256(file: &Path) -> Result<String, Failure> {
    let line = output(command("sha256sum").arg(file))?;
    Ok(line
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned())
}

/// When the last commit was made, in seconds: what is made of it bears this time,
/// so that it is the same whenever it is made.
pub fn commit_time() -> Result<String, Failure> {
    let time = output(command("git").args(["log", "-1", "--format=%ct"]))?;
    Ok(time.trim().to_owned())
}

/// Seconds as RFC 3339 has them.
pub fn utc(seconds: &str) -> Result<String, Failure> {
    let time = format!("@{seconds}");
    let text = output(command("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d", &time]))?;
    Ok(text.trim().to_owned())
}

/// Where `program` is, if it is anywhere.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = search_path();
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

fn search_path() -> std::ffi::OsString {
    let mut directories: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    directories.push(cargo_home().join("bin"));
    for system in ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"] {
        directories.push(PathBuf::from(system));
    }
    std::env::join_paths(directories).unwrap_or_default()
}

fn cargo_home() -> PathBuf {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
        .unwrap_or_else(|| PathBuf::from("/root/.cargo"))
}

fn line_of(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
