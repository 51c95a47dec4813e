//! An unmodified program is captured, forwarded and answered.

use super::{Stage, UPSTREAM};
use crate::demo::paint::time;
use crate::demo::{DESTINATION, curl};
use crate::workspace::{self, Failure};

/// Enough for a steady median.
const CALLS: usize = 200;

/// One call, then many, beside as many without the proxy.
pub fn play(stage: &Stage) -> Result<(), Failure> {
    let Stage {
        scene,
        upstream,
        paint,
    } = stage;
    let before = scene.admin().metrics()?;
    paint.title("1. An unmodified program, an address that leads nowhere");
    println!(
        "The proxy ({}) holds the cgroup {},\nand has this configuration:\n",
        before.backend(),
        scene.cgroup().display()
    );
    println!("{}", scene.upstreams());

    let url = format!("http://{DESTINATION}/hello");
    paint.command(&format!("curl {url}"));
    let body = curl::shown(scene.command("curl"), &[&url])?;
    paint.good(body.trim_end());

    let through = curl::median(&stage.calls(&[&format!("{url}?[1-{CALLS}]")])?);
    let connections = upstream.connections();
    let straight = format!("http://{}/hello?[1-{CALLS}]", upstream.address());
    let direct = curl::median(&curl::calls(workspace::command("curl"), &[&straight])?);

    let after = scene.admin().metrics()?;
    let grown = |name: &str, label| after.sum(name, &[label]) - before.sum(name, &[label]);
    println!();
    paint.row(
        "captured connects, counted in the kernel",
        grown(
            "ambassador_captured_connects_total",
            ("verdict", "captured"),
        ),
    );
    paint.row(
        "requests answered",
        grown("ambassador_requests_total", UPSTREAM),
    );
    paint.row(
        "of them on a reused connection",
        grown("ambassador_pool_reuse_total", UPSTREAM),
    );
    paint.row("connections that the upstream saw", connections);
    paint.row("median of curl, through the proxy", time(through));
    paint.row("median of curl, straight to the upstream", time(direct));
    paint.row("added latency", time(through.saturating_sub(direct)));
    Ok(())
}
