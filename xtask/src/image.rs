//! The container image, as an OCI layout, made without a daemon: one layer with
//! the binary, the roots that certificates are checked against, and licences.
//!
//! The binary is linked statically, so that nothing else need be in there. Two
//! runs over one commit give the same bytes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::licences::{self, Linkage};
use crate::workspace::{self, Failure};
use crate::{build, dependencies, setup};

/// Who runs in a container that does not say otherwise: nobody's number.
const USER: &str = "65532:65532";

/// The roots of Debian's `ca-certificates`.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Programs that make the image, and the Debian package of each.
const PROGRAMS: [(&str, &str); 5] = [
    ("gzip", "gzip"),
    ("sha256sum", "coreutils"),
    ("strip", "binutils"),
    ("tar", "tar"),
    ("update-ca-certificates", "ca-certificates"),
];

/// Makes the layout in `target/dist/image` and gives its path.
pub fn make() -> Result<PathBuf, Failure> {
    setup::programs(&PROGRAMS)?;
    let binary = build::fully_static()?;
    let place = workspace::target_directory().join("dist");
    let files = place.join("image-files");
    lay_out(&files, &binary)?;
    let layout = place.join("image");
    workspace::fresh_directory(&layout.join("blobs/sha256"), &layout)?;
    write_layout(&layout, &files)?;
    remove(&files)?;
    Ok(layout)
}

/// The content of the image, as a tree.
fn lay_out(files: &Path, binary: &Path) -> Result<(), Failure> {
    workspace::fresh_directory(files, files)?;
    let crates = dependencies::of_the_binary()?;
    let inside = files.join("ambassador");
    workspace::run(
        workspace::command("strip")
            .args(["--strip-all", "-o"])
            .args([&inside, binary]),
    )?;
    permit(&inside, 0o755)?;
    for (path, from) in [
        (&ROOTS[1..], Path::new(ROOTS)),
        ("usr/share/doc/ambassador/LICENSE", &licences::ours()),
    ] {
        let text = fs::read(from).map_err(|error| Failure::File(from.into(), error))?;
        workspace::write(&files.join(path), &text)?;
    }
    let others = licences::of_third_parties(&crates, Linkage::Static)?;
    let path = files.join("usr/share/doc/ambassador/THIRD-PARTY");
    workspace::write(&path, others.as_bytes())
}

fn write_layout(layout: &Path, files: &Path) -> Result<(), Failure> {
    let epoch = workspace::commit_time()?;
    let tar = layout.join("layer");
    workspace::run(
        workspace::command("tar")
            .args(["--create", "--sort=name", "--format=gnu", "--numeric-owner"])
            .args(["--owner=0", "--group=0", "--mode=u=rwX,go=rX"])
            .arg(format!("--mtime=@{epoch}"))
            .arg("--file")
            .arg(&tar)
            .arg("--directory")
            .arg(files)
            .args(["ambassador", "etc", "usr"]),
    )?;
    let uncompressed = workspace::sha256(&tar)?;
    workspace::run(workspace::command("gzip").args(["-n", "-9"]).arg(&tar))?;
    let layer = blob(
        layout,
        "application/vnd.oci.image.layer.v1.tar+gzip",
        &tar.with_extension("gz"),
    )?;
    let created = workspace::utc(&epoch)?;
    let config = json!({
        "created": created,
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "User": USER,
            "Entrypoint": ["/ambassador"],
            "Cmd": ["run"],
            "Labels": labels(),
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{uncompressed}")] },
        "history": [{ "created": created, "created_by": "cargo xtask image" }],
    });
    let config = document(layout, "application/vnd.oci.image.config.v1+json", &config)?;
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": config,
        "layers": [layer],
        "annotations": labels(),
    });
    let mut manifest = document(layout, manifest_type, &manifest)?;
    manifest["annotations"] =
        json!({ "org.opencontainers.image.ref.name": env!("CARGO_PKG_VERSION") });
    manifest["platform"] = json!({ "architecture": architecture(), "os": "linux" });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    workspace::write(&layout.join("index.json"), index.to_string().as_bytes())?;
    let version = json!({ "imageLayoutVersion": "1.0.0" }).to_string();
    workspace::write(&layout.join("oci-layout"), version.as_bytes())
}

fn labels() -> Value {
    json!({
        "org.opencontainers.image.title": "ambassador",
        "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
        "org.opencontainers.image.licenses": "Apache-2.0",
    })
}

/// Go's name of this machine's architecture, as images have it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn document(layout: &Path, media_type: &str, value: &Value) -> Result<Value, Failure> {
    let path = layout.join("document");
    workspace::write(&path, value.to_string().as_bytes())?;
    blob(layout, media_type, &path)
}

/// Moves a file to where its digest says, and gives the descriptor of it.
fn blob(layout: &Path, media_type: &str, file: &Path) -> Result<Value, Failure> {
    let failed = |error| Failure::File(file.to_path_buf(), error);
    let digest = workspace::sha256(file)?;
    let size = fs::metadata(file).map_err(failed)?.len();
    permit(file, 0o644)?;
    fs::rename(file, layout.join("blobs/sha256").join(&digest)).map_err(failed)?;
    Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size }))
}

fn permit(file: &Path, mode: u32) -> Result<(), Failure> {
    fs::set_permissions(file, fs::Permissions::from_mode(mode))
        .map_err(|error| Failure::File(file.to_path_buf(), error))
}

fn remove(directory: &Path) -> Result<(), Failure> {
    fs::remove_dir_all(directory).map_err(|error| Failure::File(directory.to_path_buf(), error))
}
