//! The `ambassador-load` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ambassador_load::cli::main()
}
