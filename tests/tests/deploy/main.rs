//! What is deployed: manifests, image, unit and package, each against those who
//! judge or run it: published schemas, systemd, lintian, namespaces.

mod container;
mod image;
mod machine;
mod manifest;
mod manifests;
mod package;
mod unit;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The top directory of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What `cargo xtask dist` leaves; made once. `AMBASSADOR_DIST` names one that is
/// made already.
fn dist() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        if let Some(made) = std::env::var_os("AMBASSADOR_DIST") {
            return root().join(made);
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut task = Command::new(cargo);
        task.args(["run", "--quiet", "--package", "xtask", "--", "dist"]);
        let status = task.current_dir(root()).status();
        assert!(status.is_ok_and(|status| status.success()), "{task:?}");
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        root().join(target).join("dist")
    })
}

/// The only file of `dist` with this ending.
fn only(ending: &str) -> PathBuf {
    let entries = std::fs::read_dir(dist()).expect("it was made");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let mut found = paths.filter(|path| path.to_string_lossy().ends_with(ending));
    let path = found.next().unwrap_or_else(|| panic!("no {ending}"));
    assert_eq!(found.next(), None);
    path
}
