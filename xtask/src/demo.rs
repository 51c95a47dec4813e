//! Shows what the program is for: an unmodified curl calls an address that no
//! route leads to, is captured at connect(), forwarded and answered; then its
//! upstream gets flaky, dies and comes back. Everything the demo makes (a
//! cgroup, a directory, processes) is gone when it ends, however it ends.

mod acts;
mod admin;
mod curl;
mod guard;
mod paint;
mod scene;
mod timeline;
mod upstream;

use crate::workspace::Failure;
use crate::{build, setup, test};
use acts::{Stage, capture, figures, flaky, outage, recovery};
use paint::Paint;
use scene::Scene;
use timeline::Timeline;
use upstream::Upstream;

/// What curl calls. Nothing here has this address.
const DESTINATION: &str = "10.1.2.3";

/// Sets up, builds, shows, tidies up.
pub fn show() -> Result<(), Failure> {
    test::require_root()?;
    setup::toolchain()?;
    setup::programs(&[("curl", "curl")])?;
    let built = build::release()?;

    let upstream = Upstream::start()?;
    let scene = Scene::set(&built.binary, DESTINATION, upstream.address())?;
    let stage = Stage {
        upstream,
        scene,
        paint: Paint::new(),
    };
    capture::play(&stage)?;
    let before = stage.scene.admin().metrics()?;
    flaky::play(&stage)?;
    let timeline = Timeline::watch(stage.scene.admin())?;
    let outage = outage::play(&stage)?;
    let back = recovery::play(&stage)?;
    figures::play(&stage, &before, &outage, &back, &timeline.end())?;

    let left = stage.scene.strike()?;
    if !left.is_empty() {
        return Err(Failure::Check(left));
    }
    println!("\nThe proxy has ended; no cgroup, link, rule or file of the demo is left.");
    Ok(())
}
