//! What a release consists of: the Debian package, the container image, the list
//! of what is inside, and the digests of all of it, in `target/dist`.

mod deb;
mod sbom;

use std::fs;
use std::path::{Path, PathBuf};

use crate::workspace::{self, Failure};
use crate::{build, dependencies, image, setup};

/// Names a binary that is built already.
const BINARY_VARIABLE: &str = "AMBASSADOR_BIN";

/// The digests, in the form that `sha256sum --check` takes.
const SUMS: &str = "SHA256SUMS";

/// Makes everything anew.
pub fn make() -> Result<PathBuf, Failure> {
    let place = workspace::target_directory().join("dist");
    workspace::fresh_directory(&place, &place)?;
    setup::programs(&deb::PROGRAMS)?;
    let crates = dependencies::of_the_binary()?;
    let name = format!("ambassador-{}", env!("CARGO_PKG_VERSION"));
    sbom::write(&place.join(format!("{name}.spdx.json")), &crates)?;
    deb::make(&place, &binary()?, &crates)?;
    image::make()?;
    write_sums(&place)?;
    Ok(place)
}

fn binary() -> Result<PathBuf, Failure> {
    match std::env::var_os(BINARY_VARIABLE) {
        Some(path) => Ok(workspace::root().join(path)),
        None => Ok(build::release()?.binary),
    }
}

fn write_sums(place: &Path) -> Result<(), Failure> {
    let mut lines = String::new();
    for file in files(place)? {
        let name = file.strip_prefix(place).unwrap_or(&file).display();
        lines.push_str(&format!("{}  {name}\n", workspace::sha256(&file)?));
    }
    workspace::write(&place.join(SUMS), lines.as_bytes())
}

/// Every file below a directory, sorted.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::File(directory.to_path_buf(), error);
    let (mut found, mut left) = (Vec::new(), vec![directory.to_path_buf()]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            match path.is_dir() {
                true => left.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    Ok(found)
}
