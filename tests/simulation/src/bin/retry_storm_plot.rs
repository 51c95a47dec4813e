//! `retry-storm-plot [SEED [FILE]]`: draws the retry storm, into the
//! documentation where no file is named, and prints its figures.

use std::process::ExitCode;

use ambassador_simulation::scenarios::retry_storm::PLOT_SEED;
use ambassador_simulation::scenarios::retry_storm::report::Report;

const DOCUMENTED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/plots/retry-storm.svg"
);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let seed = arguments.next().map_or(Ok(PLOT_SEED), |seed| seed.parse());
    let Ok(seed) = seed else {
        eprintln!("usage: retry-storm-plot [SEED [FILE]]");
        return ExitCode::from(2);
    };
    let path = arguments.next().unwrap_or_else(|| DOCUMENTED.into());
    let report = Report::new(seed);
    if let Err(error) = std::fs::write(&path, report.svg()) {
        eprintln!("cannot write {path}: {error}");
        return ExitCode::FAILURE;
    }
    print!("{}", report.table());
    ExitCode::SUCCESS
}
