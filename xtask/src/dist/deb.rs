//! The Debian package: binary, unit, man pages, completions, configuration.
//!
//! Put together file by file: its content is what is in `deploy/`, and what
//! `deploy/pages` writes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::dependencies::Dependency;
use crate::dist;
use crate::licences::{self, Linkage};
use crate::workspace::{self, Failure};

/// Programs that make the package, and the Debian package of each.
pub const PROGRAMS: [(&str, &str); 5] = [
    ("dpkg-deb", "dpkg"),
    ("dpkg-shlibdeps", "dpkg-dev"),
    ("gzip", "gzip"),
    ("md5sum", "coreutils"),
    ("strip", "binutils"),
];

/// What is packaged has no version of its own as a package.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Files that are installed as they are in the repository.
const AS_THEY_ARE: [(&str, &str); 4] = [
    (
        "deploy/systemd/ambassador.service",
        "lib/systemd/system/ambassador.service",
    ),
    (
        "deploy/systemd/sysusers.conf",
        "usr/lib/sysusers.d/ambassador.conf",
    ),
    ("deploy/ambassador.yaml", "etc/ambassador/ambassador.yaml"),
    (
        "deploy/debian/copyright",
        "usr/share/doc/ambassador/copyright",
    ),
];

/// Where completions are looked for.
const COMPLETIONS: [(&str, &str); 3] = [
    (
        "ambassador.bash",
        "usr/share/bash-completion/completions/ambassador",
    ),
    (
        "ambassador.fish",
        "usr/share/fish/vendor_completions.d/ambassador.fish",
    ),
    (
        "_ambassador",
        "usr/share/zsh/vendor-completions/_ambassador",
    ),
];

/// Scripts that run when it is installed and removed.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Makes the package of `binary` in `place`.
pub fn make(place: &Path, binary: &Path, crates: &[Dependency]) -> Result<(), Failure> {
    let tree = place.join("deb");
    let inside = tree.join("usr/bin/ambassador");
    for (from, to) in AS_THEY_ARE {
        copy(&workspace::root().join(from), &tree.join(to))?;
    }
    copy(binary, &inside)?;
    workspace::run(
        workspace::command("strip")
            .args(["--strip-all", "--remove-section=.comment"])
            .arg(&inside),
    )?;
    pages(place, &tree)?;
    documents(&tree, crates)?;
    let depends = shared_libraries(place, &inside)?;
    control(&tree, &depends)?;
    permit(&tree)?;
    let name = format!("ambassador_{}_{}.deb", VERSION, architecture()?);
    workspace::output(
        workspace::command("dpkg-deb")
            .args(["--build", "--root-owner-group"])
            .args([&tree, &place.join(name)])
            .env("SOURCE_DATE_EPOCH", workspace::commit_time()?),
    )?;
    fs::remove_dir_all(&tree).map_err(|error| Failure::File(tree, error))
}

fn pages(place: &Path, tree: &Path) -> Result<(), Failure> {
    let made = place.join("pages");
    workspace::run(
        workspace::command("cargo")
            .args(["run", "--quiet", "--package", "ambassador-pages", "--"])
            .arg(&made),
    )?;
    for (from, to) in COMPLETIONS {
        copy(&made.join(from), &tree.join(to))?;
    }
    for page in dist::files(&made)? {
        if let Some(name) = page.file_name()
            && page.extension().is_some_and(|section| section == "1")
        {
            let text = read(&page)?;
            compressed(&tree.join("usr/share/man/man1").join(name), &text)?;
        }
    }
    fs::remove_dir_all(&made).map_err(|error| Failure::File(made, error))
}

fn documents(tree: &Path, crates: &[Dependency]) -> Result<(), Failure> {
    let place = tree.join("usr/share/doc/ambassador");
    let log = workspace::root().join("CHANGELOG.md");
    compressed(&place.join("CHANGELOG.md"), &read(&log)?)?;
    let time = format!("@{}", workspace::commit_time()?);
    let mut date = workspace::command("date");
    let date = workspace::output(date.args(["-u", "-R", "-d", &time]))?;
    let entry = format!(
        "ambassador ({VERSION}) unstable; urgency=medium\n\n  * What has changed is in CHANGELOG.md.\n\n -- {}  {}\n",
        maintainer()?,
        date.trim()
    );
    compressed(&place.join("changelog"), entry.as_bytes())?;
    let others = licences::of_third_parties(crates, Linkage::Dynamic)?;
    compressed(&place.join("THIRD-PARTY"), others.as_bytes())
}

/// The packages of the shared objects that the binary needs.
fn shared_libraries(place: &Path, binary: &Path) -> Result<String, Failure> {
    // It looks for a source package around it.
    let source = place.join("source");
    workspace::write(
        &source.join("debian/control"),
        b"Source: ambassador\n\nPackage: ambassador\nArchitecture: any\n",
    )?;
    let mut shlibdeps = workspace::command("dpkg-shlibdeps");
    let found = workspace::output(
        shlibdeps
            .args(["-O", "-e"])
            .arg(binary)
            .current_dir(&source),
    )?;
    fs::remove_dir_all(&source).map_err(|error| Failure::File(source, error))?;
    let depends = found.trim().strip_prefix("shlibs:Depends=");
    Ok(depends.unwrap_or(found.trim()).to_owned())
}

fn control(tree: &Path, depends: &str) -> Result<(), Failure> {
    let place = tree.join("DEBIAN");
    let files = dist::files(tree)?;
    let mut bytes = 0;
    let mut sums = workspace::command("md5sum");
    for file in &files {
        bytes += fs::metadata(file)
            .map_err(|error| Failure::File(file.clone(), error))?
            .len();
        sums.arg(file.strip_prefix(tree).unwrap_or(file));
    }
    let sums = workspace::output(sums.current_dir(tree))?;
    workspace::write(&place.join("md5sums"), sums.as_bytes())?;
    let text = template()?
        .replace("@VERSION@", VERSION)
        .replace("@ARCHITECTURE@", &architecture()?)
        .replace("@SIZE@", &bytes.div_ceil(1024).to_string())
        .replace("@DEPENDS@", depends);
    workspace::write(&place.join("control"), text.as_bytes())?;
    workspace::write(
        &place.join("conffiles"),
        b"/etc/ambassador/ambassador.yaml\n",
    )?;
    for script in SCRIPTS {
        copy(&debian(script), &place.join(script))?;
    }
    Ok(())
}

/// Modes by place: git keeps less than all of them.
fn permit(tree: &Path) -> Result<(), Failure> {
    for file in dist::files(tree)? {
        let place = file.parent().unwrap_or(tree);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let runs = place.ends_with("usr/bin") || SCRIPTS.contains(&&*name);
        let mode = if runs { 0o755 } else { 0o644 };
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))
            .map_err(|error| Failure::File(file.clone(), error))?;
    }
    Ok(())
}

fn architecture() -> Result<String, Failure> {
    let mut dpkg = workspace::command("dpkg");
    let name = workspace::output(dpkg.arg("--print-architecture"))?;
    Ok(name.trim().to_owned())
}

fn maintainer() -> Result<String, Failure> {
    let text = template()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Maintainer: "));
    Ok(line.unwrap_or_default().to_owned())
}

fn template() -> Result<String, Failure> {
    let path = debian("control");
    fs::read_to_string(&path).map_err(|error| Failure::File(path, error))
}

fn debian(name: &str) -> PathBuf {
    workspace::root().join("deploy/debian").join(name)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::File(path.to_path_buf(), error))
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    workspace::write(to, &read(from)?)
}

/// Writes `NAME.gz`.
fn compressed(path: &Path, text: &[u8]) -> Result<(), Failure> {
    workspace::write(path, text)?;
    workspace::run(workspace::command("gzip").args(["-n", "-9"]).arg(path))
}
