//! Installs what is missing, and says so; does nothing, quickly, when nothing is.

use std::path::Path;

use crate::workspace::{self, Failure};

/// The newest release that works with the LLVM of the pinned toolchain.
const BPF_LINKER_VERSION: &str = "0.10.3";

/// Programs of the system that the tests, the demo and the benchmark use, and the Debian
/// package that has each.
const SYSTEM_PROGRAMS: [(&str, &str); 21] = [
    ("capsh", "libcap2-bin"),
    ("curl", "curl"),
    ("dpkg-shlibdeps", "dpkg-dev"),
    ("h2load", "nghttp2-client"),
    ("haproxy", "haproxy"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("lintian", "lintian"),
    ("nghttpd", "nghttp2-server"),
    ("nginx", "nginx-light"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("pip3", "python3-pip"),
    ("ps", "procps"),
    ("python3", "python3"),
    ("setpriv", "util-linux"),
    ("setsid", "util-linux"),
    ("systemd-analyze", "systemd"),
    ("wrk", "wrk"),
];

/// What building, testing and the demo need.
pub fn everything() -> Result<(), Failure> {
    toolchain()?;
    programs(&SYSTEM_PROGRAMS)
}

/// What building needs: the source of `core`, and a linker for BPF.
pub fn toolchain() -> Result<(), Failure> {
    rust_src()?;
    bpf_linker()
}

/// The programs in `wanted`, installed as Debian packages where missing.
pub fn programs(wanted: &[(&str, &str)]) -> Result<(), Failure> {
    let mut packages: Vec<&str> = wanted
        .iter()
        .filter(|(program, _)| workspace::find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if workspace::find("apt-get").is_none() {
        return Err(Failure::Missing(format!(
            "these programs are missing and there is no apt-get to install them: {list}"
        )));
    }
    println!("installing Debian packages: {list}");
    let apt = || {
        let mut command = workspace::command("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    workspace::run(apt().args(["-qq", "update"]))?;
    workspace::run(
        apt()
            .args(["-qq", "install", "--yes", "--no-install-recommends"])
            .args(packages),
    )
}

fn rust_src() -> Result<(), Failure> {
    let sysroot = workspace::output(workspace::command("rustc").args(["--print", "sysroot"]))?;
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml");
    if source.is_file() {
        return Ok(());
    }
    if workspace::find("rustup").is_none() {
        return Err(Failure::Missing(format!(
            "the source of the standard library is not at {}, and there is no rustup to add it; \
             install the rust-src component of this toolchain",
            source.display()
        )));
    }
    println!("installing rust-src for the pinned toolchain");
    workspace::run(workspace::command("rustup").args(["component", "add", "rust-src"]))
}

fn bpf_linker() -> Result<(), Failure> {
    let found = match workspace::find("bpf-linker") {
        None => String::new(),
        Some(_) => {
            workspace::output(workspace::command("bpf-linker").arg("--version")).unwrap_or_default()
        }
    };
    if found
        .split_whitespace()
        .any(|word| word == BPF_LINKER_VERSION)
    {
        return Ok(());
    }
    println!("installing bpf-linker {BPF_LINKER_VERSION} (about two minutes)");
    workspace::run(workspace::command("cargo").args([
        "install",
        "bpf-linker",
        "--version",
        BPF_LINKER_VERSION,
        "--locked",
        "--force",
    ]))
}
