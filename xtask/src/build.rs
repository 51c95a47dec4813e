//! Builds the BPF programs, then the release binary with them inside.

use std::path::PathBuf;

use crate::setup;
use crate::workspace::{self, Failure};

/// The variable by which `ambassador/build.rs` finds the programs.
pub const OBJECT_VARIABLE: &str = "AMBASSADOR_BPF_OBJECT";

/// What the binary is built for: this machine, with the C library of Debian.
#[cfg(target_arch = "x86_64")]
pub const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The same on 64-bit ARM.
#[cfg(target_arch = "aarch64")]
pub const TARGET: &str = "aarch64-unknown-linux-gnu";

/// What a build leaves.
pub struct Built {
    /// The proxy.
    pub binary: PathBuf,
    /// The BPF programs that are inside it.
    pub object: PathBuf,
}

/// Builds everything that is not up to date.
pub fn release() -> Result<Built, Failure> {
    setup::toolchain()?;
    let object = programs()?;
    workspace::run(
        workspace::command("cargo")
            .args(["build", "--release", "--package", "ambassador"])
            .env(OBJECT_VARIABLE, &object),
    )?;
    Ok(Built {
        binary: workspace::target_directory().join("release/ambassador"),
        object,
    })
}

/// Builds the binary with the C library inside, so that it runs where there is
/// nothing else. It looks up neither names nor users through that library, which
/// could not load its modules then.
pub fn fully_static() -> Result<PathBuf, Failure> {
    setup::toolchain()?;
    let object = programs()?;
    workspace::run(
        workspace::command("cargo")
            .args(["build", "--release", "--package", "ambassador"])
            // Named, so that the flags are not for build scripts too.
            .args(["--target", TARGET])
            .env(
                "CARGO_ENCODED_RUSTFLAGS",
                "-C\u{1f}target-feature=+crt-static",
            )
            .env(OBJECT_VARIABLE, &object),
    )?;
    let release = workspace::target_directory().join(TARGET).join("release");
    Ok(release.join("ambassador"))
}

/// Builds the BPF programs.
///
/// The pinned toolchain is a stable one; `RUSTC_BOOTSTRAP` lets it compile
/// `core` for the BPF target. `target-cpu=v3` gives atomics that return the
/// old value, which the programs rely on. `--btf` is for map types and for
/// the names in the verifier's messages.
fn programs() -> Result<PathBuf, Failure> {
    let target_directory = workspace::target_directory().join("bpf");
    let architecture = std::env::consts::ARCH;
    let flags = [
        "-Ctarget-cpu=v3".to_owned(),
        format!("--cfg=bpf_target_arch=\"{architecture}\""),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        "-Clinker=bpf-linker".to_owned(),
    ]
    .join("\u{1f}");
    workspace::run(
        workspace::command("cargo")
            .args(["build", "--release", "--package", "ambassador-ebpf"])
            .args(["--bin", "programs", "--features", "programs"])
            .args([
                "--target",
                "bpfel-unknown-none",
                "-Z",
                "build-std=core",
                "--target-dir",
            ])
            .arg(&target_directory)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags),
    )?;
    let object = target_directory.join("bpfel-unknown-none/release/programs");
    object
        .canonicalize()
        .map_err(|error| Failure::File(object, error))
}
