//! Shows the main job: an unmodified curl calls an address that no route
//! leads to, is captured at connect(), forwarded and answered. Everything it
//! makes (a cgroup, a directory, processes) is gone when it ends, however it ends.

mod guard;
mod scene;
mod upstream;

use std::io::IsTerminal;

use crate::workspace::{self, Failure};
use crate::{build, setup, test};
use scene::Scene;
use upstream::Upstream;

/// What curl calls. Nothing here has this address.
const DESTINATION: &str = "10.1.2.3";

/// Requests of one curl, for the latency; enough for a steady median.
const REQUESTS: usize = 200;

/// Sets up, builds, shows, tidies up.
pub fn show() -> Result<(), Failure> {
    test::require_root()?;
    setup::toolchain()?;
    setup::programs(&[("curl", "curl")])?;
    let built = build::release()?;
    let paint = Paint::new();

    let upstream = Upstream::start()?;
    let scene = Scene::set(&built.binary, DESTINATION, upstream.address())?;
    println!(
        "{}",
        paint.title("An unmodified program, an address that leads nowhere")
    );
    println!(
        "The upstream listens on {}. The proxy ({}) holds the cgroup\n{}.\n",
        upstream.address(),
        scene.backend(),
        scene.cgroup().display()
    );

    let url = format!("http://{DESTINATION}/hello");
    let before = scene.metrics()?;
    println!("{}", paint.command(&format!("curl {url}")));
    let body = workspace::output(scene.command("curl").args(["-sS", "-m", "10", &url]))?;
    println!("{}\n", paint.good(body.trim_end()));

    let through = median_of_curl(&mut scene.command("curl"), &url)?;
    let straight = format!("http://{}/hello", upstream.address());
    let direct = median_of_curl(&mut workspace::command("curl"), &straight)?;

    let after = scene.metrics()?;
    let grown = |name: &str, label: &str| after.sum(name, label) - before.sum(name, label);
    println!("{}", paint.title("What happened"));
    let seconds = after.sum("ambassador_overhead_seconds_sum", "upstream=\"demo\"");
    let served = after.sum("ambassador_requests_total", "upstream=\"demo\"");
    let rows = [
        ("captured connects, counted in the kernel", {
            count(grown(
                "ambassador_captured_connects_total",
                "verdict=\"captured\"",
            ))
        }),
        (
            "route",
            format!("{DESTINATION}:80 -> upstream `demo` by its address claim"),
        ),
        ("upstream", format!("demo at {}", upstream.address())),
        (
            "requests answered",
            count(grown("ambassador_requests_total", "upstream=\"demo\"")),
        ),
        (
            "connections that the upstream saw",
            upstream.connections().to_string(),
        ),
        ("requests on a reused connection", {
            count(grown("ambassador_pool_reuse_total", "upstream=\"demo\""))
        }),
        (
            "median of curl, through the proxy",
            format!("{through:.0} us"),
        ),
        (
            "median of curl, straight to the upstream",
            format!("{direct:.0} us"),
        ),
        (
            "added latency",
            format!("{:.0} us", (through - direct).max(0.0)),
        ),
        (
            "of it spent in the proxy, mean",
            format!("{:.0} us", 1e6 * seconds / served.max(1.0)),
        ),
    ];
    for (what, value) in rows {
        println!("  {what:<42} {}", paint.good(&value));
    }

    let left = scene.strike()?;
    if !left.is_empty() {
        return Err(Failure::Check(left));
    }
    println!("\nThe proxy has ended; no cgroup, link, rule or file of the demo is left.");
    Ok(())
}

/// The median time of a keep-alive request, in microseconds, as curl sees it.
fn median_of_curl(curl: &mut std::process::Command, url: &str) -> Result<f64, Failure> {
    let many = format!("{url}?[1-{REQUESTS}]");
    curl.args([
        "-sS",
        "-m",
        "30",
        "-o",
        "/dev/null",
        "-w",
        "%{time_total}\\n",
        &many,
    ]);
    let times = workspace::output(curl)?;
    let mut times: Vec<f64> = times
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect();
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2);
    median
        .map(|seconds| seconds * 1e6)
        .ok_or_else(|| Failure::Check(vec!["curl said no times".into()]))
}

fn count(value: f64) -> String {
    format!("{value:.0}")
}

/// Colours on a terminal, plain text elsewhere and under `NO_COLOR`.
struct Paint {
    coloured: bool,
}

impl Paint {
    fn new() -> Paint {
        let wanted = std::env::var_os("NO_COLOR").is_none();
        Paint {
            coloured: wanted && std::io::stdout().is_terminal(),
        }
    }

    fn title(&self, text: &str) -> String {
        self.wrap("1", text)
    }

    fn command(&self, text: &str) -> String {
        self.wrap("36", &format!("$ {text}"))
    }

    fn good(&self, text: &str) -> String {
        self.wrap("32", text)
    }

    fn wrap(&self, code: &str, text: &str) -> String {
        if self.coloured {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}
