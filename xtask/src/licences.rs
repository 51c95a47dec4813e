//! The licences of everything inside the binary, as one text: they want to go
//! where the binary goes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::dependencies::Dependency;
use crate::workspace::{self, Failure};

/// What the names of files with licences begin with.
const NAMES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"];

/// The file of this repository.
pub fn ours() -> PathBuf {
    workspace::root().join("LICENSE")
}

/// What is linked in besides crates: its name, and where a Debian system or the
/// toolchain has its licence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linkage {
    /// The C library stays outside.
    Dynamic,
    /// The C library is inside.
    Static,
}

/// All of them: a list of what is inside, then each text once.
pub fn of_third_parties(crates: &[Dependency], linkage: Linkage) -> Result<String, Failure> {
    let mut list = String::new();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for dependency in crates.iter().filter(|entry| entry.sha256.is_some()) {
        let Dependency {
            name,
            version,
            license,
            ..
        } = dependency;
        let _ = writeln!(list, "{name} {version}: {license}");
        for file in files(&dependency.directory)? {
            let text = read(&file)?;
            texts.entry(text).or_default().push(name.clone());
        }
    }
    for (name, file) in outside_cargo(linkage)? {
        let _ = writeln!(list, "{name}: see below");
        texts.entry(read(&file)?).or_default().push(name.to_owned());
    }
    let mut out = format!(
        "The ambassador is under the Apache License 2.0. Inside its binary are also:\n\n{list}"
    );
    for (text, names) in texts {
        let _ = write!(out, "\n---- {}\n\n{}\n", names.join(", "), text.trim_end());
    }
    Ok(out)
}

fn outside_cargo(linkage: Linkage) -> Result<Vec<(&'static str, PathBuf)>, Failure> {
    let sysroot = workspace::output(workspace::command("rustc").args(["--print", "sysroot"]))?;
    let rust = Path::new(sysroot.trim()).join("share/doc/rust/COPYRIGHT");
    let mut files = vec![("the Rust standard library", rust)];
    if linkage == Linkage::Static {
        let debian = Path::new("/usr/share/doc");
        files.push(("the GNU C library", debian.join("libc6/copyright")));
        files.push(("libgcc", debian.join("libgcc-s1/copyright")));
    }
    // Other systems keep them elsewhere, or, like the toolchain's minimal set, not at all.
    files.retain(|(_, file)| file.is_file());
    Ok(files)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::File(directory.to_path_buf(), error);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_uppercase();
        if path.is_file() && NAMES.iter().any(|prefix| name.starts_with(prefix)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(file: &Path) -> Result<String, Failure> {
    let bytes = fs::read(file).map_err(|error| Failure::File(file.to_path_buf(), error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
