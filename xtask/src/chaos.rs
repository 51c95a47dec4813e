//! The chaos run: random faults, reloads and restarts around the real proxy.

use std::path::PathBuf;

use crate::build;
use crate::workspace::{self, Failure};

/// Names a binary that is built already.
const BINARY_VARIABLE: &str = "AMBASSADOR_BIN";

/// Builds what is not up to date and runs it with `arguments`.
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let binary = match std::env::var_os(BINARY_VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => build::release()?.binary,
    };
    workspace::run(
        workspace::command("cargo")
            .args(["run", "--quiet", "--package", "ambassador-chaos", "--"])
            .args(arguments)
            .env(BINARY_VARIABLE, binary),
    )
}
