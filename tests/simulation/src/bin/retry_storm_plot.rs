//! `retry-storm-plot [SEED [FILE]]`: draws the retry storm, into the
//! documentation where no file is named, and prints its figures.

use std::process::ExitCode;

use ambassador_simulation::plot;
use ambassador_simulation::scenarios::retry_storm::PLOT_SEED;
use ambassador_simulation::scenarios::retry_storm::report::Report;

fn main() -> ExitCode {
    plot::draw("retry-storm", PLOT_SEED, |seed| {
        let report = Report::new(seed);
        (report.svg(), report.table())
    })
}
