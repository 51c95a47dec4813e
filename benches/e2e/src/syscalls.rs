//! System calls per request, counted by perf.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ambassador_tests::program::Running;
use serde::Serialize;

use crate::standing::Standing;

/// System calls of the proxy per request over kept connections.
#[derive(Debug, Clone, Serialize)]
pub struct Syscalls {
    /// With one connection.
    pub one: f64,
    /// With 64.
    pub many: f64,
}

/// How long is counted, in seconds.
const COUNTED: f64 = 0.5;

/// Counts; needs perf and the tracepoint `raw_syscalls:sys_enter`.
pub fn measure(standing: &Standing, load: &Path) -> Result<Syscalls, String> {
    Ok(Syscalls {
        one: with(standing, load, 1)?,
        many: with(standing, load, 64)?,
    })
}

fn with(standing: &Standing, load: &Path, connections: u32) -> Result<f64, String> {
    let mut client = standing.http_client(load, connections);
    client
        .args(["--seconds", "1", "--warmup", "0.2", "--cpu", "0"])
        .stdout(Stdio::piped());
    let mut client = Running::start(&mut client);
    std::thread::sleep(Duration::from_millis(400));
    let pids: Vec<String> = standing
        .proxy_processes()
        .iter()
        .map(ToString::to_string)
        .collect();
    let counted = Command::new("perf")
        .args([
            "stat",
            "-x",
            ",",
            "-e",
            "raw_syscalls:sys_enter",
            "-p",
            &pids.join(","),
        ])
        .args(["sleep", &COUNTED.to_string()])
        .output()
        .map_err(|error| format!("perf: {error}"))?;
    let said = String::from_utf8_lossy(&counted.stderr).into_owned();
    let mut lines = said
        .lines()
        .filter_map(|line| line.split(',').next()?.parse::<f64>().ok());
    let calls = lines.next().ok_or(said.clone())?;
    let report: serde_json::Value = serde_json::from_reader(client.stdout())
        .map_err(|error| format!("the client's report: {error}"))?;
    client.wait(Duration::from_secs(10));
    let per_second = report["requests_per_second"].as_f64().unwrap_or(0.0);
    Ok(calls / (per_second * COUNTED))
}
