//! The `ambassador` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ambassador::main()
}
