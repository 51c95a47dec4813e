//! The program as it is packed.

use std::fs;
use std::path::Path;
use std::process::Command;

use ambassador_tests::proxy::Scratch;

/// Bytes of the ambassador without symbols, as the package and the image have it.
///
/// # Errors
/// What strip(1) says.
pub fn size_without_symbols(binaries: &Path) -> Result<u64, String> {
    let scratch = Scratch::new();
    let stripped = scratch.path().join("stripped");
    let mut strip = Command::new("strip");
    strip.args(["--strip-all", "-o"]).arg(&stripped);
    let output = strip.arg(binaries.join("ambassador")).output();
    let output = output.map_err(|error| format!("strip: {error}"))?;
    let size = fs::metadata(&stripped);
    size.map(|file| file.len())
        .map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())
}
