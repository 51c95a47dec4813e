//! The manifests of `deploy/kubernetes`, read as Kubernetes reads them.

use std::path::PathBuf;
use std::process::Command;

use ambassador_tests::program;
use serde_json::Value;

use crate::root;

/// The newest that has the schemas of every version in use.
const VALIDATOR: &str = "kubernetes-validate==1.37.0";

/// Every document of every manifest, with its file's name.
pub fn documents() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for file in files() {
        let script = "import json, sys, yaml\n\
                      print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
        let json = program::succeed(python().args(["-c", script]).arg(&file));
        let list: Vec<Value> = serde_json::from_str(&json).expect("json.dumps writes JSON");
        let name = file.file_name().expect("it is a file").to_string_lossy();
        found.extend(list.into_iter().map(|one| (name.to_string(), one)));
    }
    found
}

/// The document of this kind in a file.
#[track_caller]
pub fn document(file: &str, kind: &str) -> Value {
    let mut all = documents().into_iter();
    let found = all.find(|(name, document)| name == file && document["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} in {file}")).1
}

/// The container of the proxy, in whichever list of a pod's template it is.
#[track_caller]
pub fn ambassador(document: &Value) -> Value {
    let pod = &document["spec"]["template"]["spec"];
    let lists = [&pod["initContainers"], &pod["containers"]];
    let mut all = lists.into_iter().filter_map(Value::as_array).flatten();
    let found = all.find(|container| container["name"] == "ambassador");
    found.expect("the proxy is in the pod").clone()
}

/// The files.
pub fn files() -> Vec<PathBuf> {
    let directory = root().join("deploy/kubernetes");
    let entries = std::fs::read_dir(directory).expect("it is there");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("it can be read").path())
        .collect();
    files.sort();
    assert!(files.len() > 2, "{files:?}");
    files
}

/// Python with the validator, its schemas and a YAML reader at hand.
pub fn python() -> Command {
    program::python_with(VALIDATOR)
}
