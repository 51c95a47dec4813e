//! `bad-endpoints-plot [SEED [FILE]]`: draws what bad endpoints do, into the
//! documentation where no file is named, and prints the figures.

use std::process::ExitCode;

use ambassador_simulation::scenarios::bad_endpoints::report::{PLOT_SEED, Report};

const DOCUMENTED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/plots/bad-endpoints.svg"
);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let seed = arguments.next().map_or(Ok(PLOT_SEED), |seed| seed.parse());
    let Ok(seed) = seed else {
        eprintln!("usage: bad-endpoints-plot [SEED [FILE]]");
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
