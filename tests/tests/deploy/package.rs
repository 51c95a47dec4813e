//! The Debian package, the list of what is inside, and the digests.

use std::fs;
use std::process::Command;

use ambassador_tests::program;
use ambassador_tests::proxy::binary;
use serde_json::Value;

use crate::{dist, machine, only};

#[test]
fn lintian_finds_nothing_wrong_with_the_package() {
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning"]);
    // It unpacks everything and looks at each file: a busy machine takes minutes.
    let output = lintian.arg(only(".deb")).output().expect("lintian runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn every_command_has_a_page_and_every_shell_its_completions() {
    let listed = program::succeed(Command::new("dpkg-deb").arg("--contents").arg(only(".deb")));
    let help = program::succeed(Command::new(binary()).arg("help"));
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.contains(&"run"), "{help}");
    for command in commands {
        let page = format!("/usr/share/man/man1/ambassador-{command}.1.gz");
        assert!(listed.contains(&page), "no {page}");
    }
    for file in [
        "/usr/share/man/man1/ambassador.1.gz",
        "/usr/share/bash-completion/completions/ambassador",
        "/usr/share/fish/vendor_completions.d/ambassador.fish",
        "/usr/share/zsh/vendor-completions/_ambassador",
        "/lib/systemd/system/ambassador.service",
        "/usr/lib/sysusers.d/ambassador.conf",
        "/etc/ambassador/ambassador.yaml",
    ] {
        assert!(listed.contains(file), "no {file}");
    }
}

#[test]
fn installed_it_has_its_user_and_a_configuration_that_passes_and_removed_leaves_nothing() {
    let said = machine::installed(
        "set -e
         getent passwd ambassador
         ambassador check /etc/ambassador/ambassador.yaml
         bash -c 'source /usr/share/bash-completion/completions/ambassador; complete -p ambassador'
         dpkg --no-triggers --purge ambassador >&2
         ls -d /etc/ambassador /usr/bin/ambassador 2>&1 || true",
    );
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(
        said.status.success(),
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with(":/usr/sbin/nologin"), "{text}");
    assert_eq!(lines[1], "/etc/ambassador/ambassador.yaml: ok");
    assert!(lines[2].starts_with("complete "), "{text}");
    assert!(
        lines[3..].iter().all(|line| line.contains("No such file")),
        "{text}"
    );
}

#[test]
fn the_digests_are_those_of_every_file() {
    let mut check = Command::new("sha256sum");
    check
        .args(["--check", "--strict", "SHA256SUMS"])
        .current_dir(dist());
    let said = program::succeed(&mut check);
    let mut find = Command::new("find");
    let files = program::succeed(find.arg(dist()).args(["-type", "f"]));
    assert_eq!(said.lines().count() + 1, files.lines().count());
    assert!(said.contains("image/index.json: OK"), "{said}");
}

#[test]
fn the_list_of_what_is_inside_agrees_with_the_lock_file() {
    let text = fs::read_to_string(only(".spdx.json")).expect("it is text");
    let list: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(list["spdxVersion"], "SPDX-2.3");
    let packages = list["packages"].as_array().expect("a list");
    let names: Vec<&str> = packages
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    for inside in ["ambassador", "ambassador-ebpf", "aya-ebpf", "hyper"] {
        assert!(names.contains(&inside), "{inside}");
    }
    // Of tests alone.
    assert!(!names.contains(&"proptest"));
    let lock = fs::read_to_string(crate::root().join("Cargo.lock")).expect("it is text");
    for package in packages {
        if let Some(digest) = package["checksums"][0]["checksumValue"].as_str() {
            assert!(lock.contains(digest), "{package}");
        }
    }
    let known = |id: &Value| packages.iter().any(|one| one["SPDXID"] == *id);
    for relation in list["relationships"].as_array().expect("a list") {
        assert!(known(&relation["relatedSpdxElement"]), "{relation}");
    }
}
