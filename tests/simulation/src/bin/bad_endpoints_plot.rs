//! `bad-endpoints-plot [SEED [FILE]]`: draws what bad endpoints do, into the
//! documentation where no file is named, and prints the figures.

use std::process::ExitCode;

use ambassador_simulation::plot;
use ambassador_simulation::scenarios::bad_endpoints::report::{PLOT_SEED, Report};

fn main() -> ExitCode {
    plot::draw("bad-endpoints", PLOT_SEED, |seed| {
        let report = Report::new(seed);
        (report.svg(), report.table())
    })
}
