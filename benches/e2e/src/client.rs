//! The load generators of one sample.

use std::io::{BufRead, BufReader, Read};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use ambassador_tests::program::Running;
use serde_json::Value;

/// Generators that run, each started with `--announce`.
pub struct Clients(Vec<Client>);

struct Client {
    process: Running,
    said: BufReader<ChildStdout>,
}

/// A generator ends this long after its report, or something is badly wrong.
const END_WITHIN: Duration = Duration::from_secs(10);

impl Clients {
    /// Starts all of them.
    pub fn start(commands: Vec<Command>) -> Self {
        let start = |mut command: Command| {
            let mut process = Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
            let said = BufReader::new(process.stdout());
            Client { process, said }
        };
        Self(commands.into_iter().map(start).collect())
    }

    /// Waits until the load that counts begins, then until it ends, and gives
    /// what `figure` was meanwhile.
    pub fn during<T>(&mut self, figure: impl Fn() -> T) -> Result<(T, T), String> {
        let mut at = |word: &str| {
            let mut line = String::new();
            // All begin at the same time: one speaks for the others.
            let first = self.0.first_mut().ok_or("no generator")?;
            let read = first.said.read_line(&mut line);
            match read.is_ok() && line.trim_end() == word {
                true => Ok(figure()),
                false => Err("the generator ended before its load did".to_owned()),
            }
        };
        Ok((at("begin")?, at("end")?))
    }

    /// Waits for the end of all, and gives their reports.
    pub fn reports(self) -> Result<Vec<Value>, String> {
        let report = |mut client: Client| {
            let mut said = String::new();
            let read = client.said.read_to_string(&mut said);
            read.map_err(|error| error.to_string())?;
            client.process.wait(END_WITHIN);
            // The report is the last line of several.
            let last = said.lines().last().unwrap_or_default();
            serde_json::from_str(last).map_err(|_| format!("no report of the generator: {said}"))
        };
        self.0.into_iter().map(report).collect()
    }
}
