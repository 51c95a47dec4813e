//! From the start of the program to its first answer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ambassador_tests::Netns;
use ambassador_tests::program::Running;
use ambassador_tests::proxy::Scratch;
use serde::Serialize;

use crate::{memory, peers};

/// Times in milliseconds, a median each.
#[derive(Debug, Clone, Serialize)]
pub struct StartUp {
    /// `run` with listeners only.
    pub listener: f64,
    /// `exec` of a client that makes one request, less the client alone.
    pub exec: f64,
}

/// Measures both, `rounds` times.
pub fn measure(binaries: &Path, load: &Path, rounds: usize) -> Result<StartUp, String> {
    let mut listener = Vec::new();
    let mut exec = Vec::new();
    for _ in 0..rounds.max(3) {
        let place = Place::new(load)?;
        listener.push(place.listener(binaries)?);
        let client = place.timed(place.client(load, &[]))?;
        let mut captured = place.inside(&binaries.join("ambassador"));
        captured.args(["exec", "--"]).arg(load).args(ONE_REQUEST);
        exec.push(place.timed(captured)?.saturating_sub(client));
    }
    Ok(StartUp {
        listener: median(listener),
        exec: median(exec),
    })
}

/// Where the ambassador listens.
const LISTENER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

/// A client that ends after a moment. What it takes alone is taken off.
const ONE_REQUEST: [&str; 11] = [
    "run",
    "--to",
    "10.1.2.3:9000",
    "--size",
    "64",
    "--connections",
    "1",
    "--closed",
    "--seconds",
    "0.001",
    "--warmup=0",
];

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// A namespace with an upstream.
struct Place {
    _upstream: Running,
    netns: Netns,
    scratch: Scratch,
}

impl Place {
    fn new(load: &Path) -> Result<Self, String> {
        let netns = Netns::new();
        netns.ip(&["route", "add", "local", "10.0.0.0/8", "dev", "lo"]);
        let mut serve = Command::new("nsenter");
        serve.arg(format!("--net={}", netns.path().display()));
        serve.arg(load).args(["serve", "--listen", "0.0.0.0:9000"]);
        let upstream = Running::start(serve.stdout(Stdio::null()).stdin(Stdio::null()));
        let place = Self {
            _upstream: upstream,
            netns,
            scratch: Scratch::new(),
        };
        place.until_answered(|| place.client(load, &[]))?;
        Ok(place)
    }

    fn inside(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.netns.path().display()));
        command.arg(program).stderr(Stdio::null());
        // Where `exec` has its socket: gone with the rest when all is killed.
        command.env("XDG_RUNTIME_DIR", self.scratch.path());
        command
    }

    fn client(&self, load: &Path, more: &[&str]) -> Command {
        let mut command = self.inside(load);
        command.args(ONE_REQUEST).args(more);
        command
    }

    fn listener(&self, binaries: &Path) -> Result<Duration, String> {
        let config = peers::ambassador(self.scratch.path(), &peers::upstreams());
        let file = self.scratch.file("ambassador.yaml", &config);
        let mut run = self.inside(&binaries.join("ambassador"));
        run.args(["run", "--config"]).arg(file);
        let started = Instant::now();
        let _proxy = Running::start(&mut run);
        memory::within(&self.netns, || {
            let until = started + Duration::from_secs(10);
            while memory::ask(LISTENER).is_err() {
                if Instant::now() > until {
                    return Err("no answer at start-up".to_owned());
                }
                std::thread::sleep(Duration::from_micros(100));
            }
            Ok(started.elapsed())
        })
    }

    fn until_answered(&self, client: impl Fn() -> Command) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            let output = client().output().map_err(|error| error.to_string())?;
            let report: serde_json::Value =
                serde_json::from_slice(&output.stdout).unwrap_or_default();
            if report["requests"].as_u64() > Some(0) {
                return Ok(());
            }
        }
        Err("no answer at start-up".to_owned())
    }

    fn timed(&self, mut command: Command) -> Result<Duration, String> {
        let started = Instant::now();
        let output = command.output().map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(started.elapsed()),
            false => Err(format!("{command:?}: {}", output.status)),
        }
    }
}
