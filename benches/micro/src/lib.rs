//! The cases of the micro-benchmarks: what a request passes through on its way,
//! one step at a time. `benches/time.rs` takes their time,
//! `benches/instructions.rs` counts their instructions.

mod capture;
mod http;
mod http2;
mod policy;
mod ring;
mod route;
mod telemetry;
mod upstream;

use std::time::Duration;

/// Measures cases, each under its name.
pub trait Measure {
    /// Measures `once`, called again and again. What it returns is as good as
    /// used.
    fn each<R>(&mut self, name: &str, once: impl FnMut() -> R);

    /// Measures `many`, which does the thing as many times as it is told and
    /// says how long that took, without what it had to prepare.
    fn batch(&mut self, name: &str, many: impl FnMut(u64) -> Duration);
}

/// Has the lookup of a token measured, where that can be: it is a system call,
/// so that its instructions tell little.
pub fn lookup(measure: &mut impl Measure) {
    if let Err(error) = capture::all(measure) {
        println!("capture/lookup: skipped: {error}");
    }
}

/// Has every other case measured.
pub fn all(measure: &mut impl Measure) {
    http::all(measure);
    http2::all(measure);
    route::all(measure);
    upstream::all(measure);
    policy::all(measure);
    telemetry::all(measure);
    ring::all(measure);
}
