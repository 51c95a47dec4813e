use std::fs;

use super::leftovers::Leftover;
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
fn what_confines_the_proxy_is_told_where_it_is_missing() {
    use std::io::Error;

    let error = Error::from_raw_os_error;
    let is_ok = |check: Check| check.status == Status::Ok;
    assert!(is_ok(checks::seccomp(Ok(()))) && is_ok(checks::landlock(Ok(7))));
    for (check, word) in [
        (checks::seccomp(Err(error(libc::ENOSYS))), "SECCOMP_FILTER"),
        (
            checks::landlock(Err(error(libc::ENOSYS))),
            "SECURITY_LANDLOCK",
        ),
        (checks::landlock(Err(error(libc::EOPNOTSUPP))), "at boot"),
        (checks::landlock(Ok(1)), "6.12"),
    ] {
        assert_eq!(check.status, Status::Advice, "{check:?}");
        assert!(
            check.advice.as_deref().unwrap_or_default().contains(word),
            "{check:?}"
        );
    }
    // What this machine has says the same as using it does.
    assert!(is_ok(checks::seccomp(
        crate::workload::seccomp::is_available()
    )));
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
