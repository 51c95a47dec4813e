//! Requests that a proxy has to serve beside those that are measured.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ambassador_tests::program::Running;
use serde_json::Value;

use crate::process;
use crate::scenario::Beside;
use crate::standing::Standing;

/// The part of its rate that it has to reach.
const REACHED: f64 = 0.95;

/// Connections, and requests at once.
const CONNECTIONS: &str = "64";

/// A generator ends this long after its load, or something is badly wrong.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A generator that runs.
pub struct Background {
    generator: Running,
    beside: Beside,
}

impl Background {
    /// Starts it for so many seconds, on the CPU of the clients.
    pub fn start(standing: &Standing, beside: Beside, seconds: f64, load: &Path) -> Self {
        let placement = crate::placement::Placement::Apart;
        let (clients, _) = placement.of_load(process::cpus());
        let mut generator = standing.background(load, beside.protocol);
        generator
            .args(["--size", "64", "--connections", CONNECTIONS])
            .args(["--rate", &beside.rate.to_string()])
            .args(["--seconds", &seconds.to_string()])
            .args(["--cpu", &clients[0].to_string()]);
        if beside.new_connections {
            generator.arg("--new-connections");
        }
        generator.stdin(Stdio::null()).stdout(Stdio::piped());
        Self {
            generator: Running::start(&mut generator),
            beside,
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Where it has not had its answers, so that it was less than it should be.
    pub fn end(mut self) -> Result<(), String> {
        let mut said = String::new();
        let read = self.generator.stdout().read_to_string(&mut said);
        read.map_err(|error| error.to_string())?;
        self.generator.wait(END_WITHIN);
        let report: Value = serde_json::from_str(&said).unwrap_or_default();
        let rate = report["requests_per_second"].as_f64().unwrap_or(0.0);
        let errors = report["errors_total"].as_u64().unwrap_or(u64::MAX);
        match rate >= REACHED * self.beside.rate as f64 && errors == 0 {
            true => Ok(()),
            false => Err(format!(
                "beside it were {rate:.0} requests a second of {}, and {errors} errors: {}",
                self.beside.rate, report["errors"]
            )),
        }
    }
}
