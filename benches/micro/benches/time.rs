//! How long each case takes, by criterion.

use std::process::ExitCode;
use std::time::Duration;

use ambassador_micro::Measure;
use criterion::Criterion;

struct Time(Criterion);

impl Measure for Time {
    fn each<R>(&mut self, name: &str, mut once: impl FnMut() -> R) {
        self.0
            .bench_function(name, |bencher| bencher.iter(&mut once));
    }

    fn batch(&mut self, name: &str, mut many: impl FnMut(u64) -> Duration) {
        self.0
            .bench_function(name, |bencher| bencher.iter_custom(&mut many));
    }
}

fn main() -> ExitCode {
    if let Some(code) = ambassador::testing::app::as_part_of_a_proxy() {
        return code;
    }
    let criterion = Criterion::default().configure_from_args();
    let mut time = Time(criterion);
    ambassador_micro::all(&mut time);
    ambassador_micro::lookup(&mut time);
    time.0.final_summary();
    ExitCode::SUCCESS
}
