//! The cases of the micro-benchmarks: what a request passes through on its way,
//! one step at a time. `benches/time.rs` takes their time,
//! `benches/instructions.rs` counts their instructions.
//!
//! There is no case for the lookup of a token: it is one read of a map in the
//! kernel, which exists only once the programs are loaded, and costs that
//! system call and little else.

mod http;
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

/// Has every case measured.
pub fn all(measure: &mut impl Measure) {
    http::all(measure);
    route::all(measure);
    upstream::all(measure);
    telemetry::all(measure);
    ring::all(measure);
}
