//! The crates that are inside the binary, as cargo resolves them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

use crate::workspace::{self, Failure};

/// The packages that become the binary, and for which target each is built.
const ROOTS: [(&str, &str, &[&str]); 2] = [
    ("ambassador", crate::build::TARGET, &[]),
    (
        "ambassador-ebpf",
        "bpfel-unknown-none",
        &["--features", "ambassador-ebpf/programs"],
    ),
];

/// A crate inside the binary.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dependency {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence as an SPDX expression.
    pub license: String,
    /// Where its source is.
    pub directory: PathBuf,
    /// The digest of its archive, in hexadecimal; those of this repository have none.
    pub sha256: Option<String>,
    /// The names and versions of what it is built with.
    pub uses: Vec<(String, String)>,
}

/// Every crate inside the binary, the proxy itself included, by name. What only
/// builds or tests use is not among them.
pub fn of_the_binary() -> Result<Vec<Dependency>, Failure> {
    let checksums = checksums()?;
    let mut found = BTreeMap::new();
    for (root, target, features) in ROOTS {
        let metadata = metadata(target, features)?;
        for mut dependency in closure(root, &metadata) {
            let key = (dependency.name.clone(), dependency.version.clone());
            dependency.sha256 = checksums.get(&key).cloned();
            // What is in both is the same source, but may be built with less.
            found.entry(key).or_insert(dependency);
        }
    }
    Ok(found.into_values().collect())
}

fn metadata(target: &str, features: &[&str]) -> Result<Value, Failure> {
    let text = workspace::output(
        workspace::command("cargo")
            .args(["metadata", "--locked", "--format-version=1"])
            .args(["--filter-platform", target])
            .args(features),
    )?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::Check(vec![format!("cargo metadata: not understood: {error}")]))
}

/// What `root` links, and what that links in turn.
fn closure(root: &str, metadata: &Value) -> Vec<Dependency> {
    let by_id = |list: &Value| -> BTreeMap<String, Value> {
        let entries = list.as_array().into_iter().flatten();
        entries
            .map(|entry| (text(&entry["id"]), entry.clone()))
            .collect()
    };
    let packages = by_id(&metadata["packages"]);
    let nodes = by_id(&metadata["resolve"]["nodes"]);
    let is_root = |(id, package): (&String, &Value)| (package["name"] == root).then(|| id.clone());
    let mut left: Vec<String> = packages.iter().filter_map(is_root).collect();
    let mut seen: BTreeSet<String> = left.iter().cloned().collect();
    let mut found = Vec::new();
    while let Some(id) = left.pop() {
        let uses = nodes.get(&id).map(linked).unwrap_or_default();
        for used in &uses {
            if seen.insert(used.clone()) {
                left.push(used.clone());
            }
        }
        if let Some(package) = packages.get(&id) {
            let manifest = PathBuf::from(text(&package["manifest_path"]));
            let used = uses.iter().filter_map(|id| packages.get(id));
            found.push(Dependency {
                name: text(&package["name"]),
                version: text(&package["version"]),
                // The form of before SPDX expressions.
                license: text(&package["license"]).replace('/', " OR "),
                directory: manifest.parent().map(PathBuf::from).unwrap_or_default(),
                sha256: None,
                uses: used
                    .map(|used| (text(&used["name"]), text(&used["version"])))
                    .collect(),
            });
        }
    }
    found
}

/// The ids of what a package links, which build scripts and tests use is not.
fn linked(node: &Value) -> Vec<String> {
    let dependencies = node["deps"].as_array().into_iter().flatten();
    dependencies
        .filter(|dependency| {
            let mut kinds = dependency["dep_kinds"].as_array().into_iter().flatten();
            kinds.any(|kind| kind["kind"].is_null())
        })
        .map(|dependency| text(&dependency["pkg"]))
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The digests in the lock file, by name and version.
fn checksums() -> Result<BTreeMap<(String, String), String>, Failure> {
    let path = workspace::root().join("Cargo.lock");
    let lock = std::fs::read_to_string(&path).map_err(|error| Failure::File(path, error))?;
    let mut found = BTreeMap::new();
    for entry in lock.split("[[package]]") {
        let value = |key: &str| {
            let line = entry.lines().find_map(|line| line.strip_prefix(key))?;
            Some(line.trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(sum)) =
            (value("name = "), value("version = "), value("checksum = "))
        {
            found.insert((name, version), sum);
        }
    }
    Ok(found)
}
