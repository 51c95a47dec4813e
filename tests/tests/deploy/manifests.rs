//! The manifests against the schemas that Kubernetes publishes, and against what
//! the proxy itself takes.

use std::process::Command;

use ambassador_tests::program;
use ambassador_tests::proxy::{Scratch, binary};
use serde_json::{Value, json};

use crate::manifest::{ambassador, document, documents, files, python};

/// The first with native sidecars, and the newest.
const VERSIONS: [&str; 2] = ["1.29", "1.37"];

#[test]
fn the_published_schemas_know_every_word_of_the_manifests() {
    for version in VERSIONS {
        let mut validate = python();
        validate.args(["-m", "kubernetes_validate", "--strict", "-k", version]);
        let said = program::succeed(validate.args(files()));
        assert_eq!(said.matches(" passed for ").count(), documents().len());
    }
}

#[test]
fn a_word_that_the_schemas_do_not_know_is_found() {
    let scratch = Scratch::new();
    let text = std::fs::read_to_string(&files()[0]).expect("it can be read");
    let wrong = text.replacen("  template:", "  tmplate:", 1);
    assert_ne!(text, wrong);
    let file = scratch.file("wrong.yaml", &wrong);
    let mut validate = python();
    validate.args(["-m", "kubernetes_validate", "--strict"]);
    assert!(!program::output(validate.arg(file)).status.success());
}

#[test]
fn the_files_in_config_maps_pass_check() {
    let scratch = Scratch::new();
    let all = documents();
    let maps = all.iter().filter(|(_, one)| one["kind"] == "ConfigMap");
    let mut checked = 0;
    for (name, map) in maps {
        let text = map["data"]["ambassador.yaml"].as_str().expect(name);
        let file = scratch.file("ambassador.yaml", text);
        program::succeed(Command::new(binary()).arg("check").arg(file));
        checked += 1;
    }
    assert_eq!(checked, 2);
}

#[test]
fn a_sidecar_has_no_privilege_and_the_node_what_the_documents_say() {
    for file in ["sidecar.yaml", "sidecar-config.yaml"] {
        let container = ambassador(&document(file, "Deployment"));
        assert_eq!(container["restartPolicy"], "Always", "a native sidecar");
        let wanted = json!({
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        });
        assert_eq!(container["securityContext"], wanted, "{file}");
    }
    let node = ambassador(&document("node.yaml", "DaemonSet"));
    let capabilities = &node["securityContext"]["capabilities"];
    assert_eq!(capabilities["drop"], json!(["ALL"]));
    let mut added: Vec<&str> = strings(&capabilities["add"]);
    let said = std::fs::read_to_string(crate::root().join("deploy/README.md")).expect("it is text");
    let rows = said.lines().filter_map(|line| line.strip_prefix("| `CAP_"));
    let mut documented: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    // For the older iptables alone, which is not in the image.
    documented.retain(|name| *name != "NET_RAW");
    added.sort_unstable();
    documented.sort_unstable();
    assert_eq!(added, documented);
}

#[test]
fn every_proxy_has_probes_and_limits_and_the_time_to_drain() {
    for (file, kind) in [
        ("sidecar.yaml", "Deployment"),
        ("sidecar-config.yaml", "Deployment"),
        ("node.yaml", "DaemonSet"),
    ] {
        let document = document(file, kind);
        let container = ambassador(&document);
        for (probe, path) in [
            ("startupProbe", "/readyz"),
            ("readinessProbe", "/readyz"),
            ("livenessProbe", "/livez"),
        ] {
            assert_eq!(container[probe]["httpGet"]["path"], path, "{file} {probe}");
        }
        let resources = &container["resources"];
        assert!(resources["requests"]["cpu"].is_string(), "{file}");
        assert!(resources["limits"]["memory"].is_string(), "{file}");
        let grace = document["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64();
        assert!(grace.is_some_and(|seconds| seconds > 30), "{file}");
    }
}

fn strings(list: &Value) -> Vec<&str> {
    let list = list.as_array().expect("it is a list").iter();
    list.map(|one| one.as_str().expect("a name")).collect()
}
