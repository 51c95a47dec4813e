use std::fs;

use super::*;
use crate::workload::cgroup::{EXEC_PREFIX, own_cgroup};

fn facts() -> Facts {
    Facts {
        backend: "io_uring".into(),
        why_not_ring: None,
        has_programs: true,
        cgroup: None,
    }
}

#[test]
fn this_machine_can_capture() {
    let report = Report::of(&facts());
    assert!(report.is_ready(), "{report}");
    let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
    assert_eq!(
        json["checks"].as_array().unwrap().len(),
        report.checks.len()
    );
    assert_eq!(report.to_string().lines().count(), report.checks.len());
}

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    let report = Report::of(&Facts {
        backend: "epoll".into(),
        why_not_ring: Some("io_uring_setup: Operation not permitted".into()),
        has_programs: false,
        cgroup: Some("/nowhere".into()),
    });
    let status = |name| {
        report
            .checks
            .iter()
            .find(|check| check.name == name)
            .unwrap()
            .status
    };
    assert!(!report.is_ready());
    assert_eq!(status("programs"), Status::Missing);
    assert_eq!(status("bpf"), Status::Missing);
    assert_eq!(status("io_uring"), Status::Advice);
    for check in &report.checks {
        assert_eq!(
            check.advice.is_none(),
            check.status == Status::Ok,
            "{check:?}"
        );
    }
}

#[test]
fn releases_are_compared_as_numbers() {
    assert_eq!(checks::version("6.1.0-18-amd64"), Some((6, 1)));
    assert!(checks::version("5.15.0").unwrap() < checks::version("6.1").unwrap());
    assert!(checks::version("6.18.44-fc").unwrap() > checks::version("6.2").unwrap());
    assert_eq!(checks::version("x"), None);
}

#[test]
fn a_cgroup_without_an_owner_is_found_and_removed() {
    // Above the largest pid that a kernel gives out.
    let orphan = own_cgroup().unwrap().join(format!("{EXEC_PREFIX}4194305"));
    let owned = own_cgroup().unwrap().join(format!("{EXEC_PREFIX}1"));
    fs::create_dir_all(orphan.join("nested")).unwrap();
    fs::create_dir_all(&owned).unwrap();
    let cleaned = clean();
    let ours = cleaned
        .iter()
        .find(|(leftover, _)| *leftover == Leftover::Cgroup(orphan.clone()));
    assert!(ours.unwrap().1.is_ok(), "{cleaned:?}");
    assert!(!orphan.exists());
    assert!(owned.exists());
    fs::remove_dir(&owned).unwrap();
}
