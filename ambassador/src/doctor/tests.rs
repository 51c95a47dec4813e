use std::fs;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use super::*;
use crate::workload::cgroup::{Cgroup, EXEC_PREFIX, own_cgroup};
use crate::workload::helper::tests::on_a_thread;

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

/// `bpf_attr` of BPF_PROG_LOAD, up to what is set here.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u64; 2],
    version_and_flags: u64,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// A connect4 program that lets everything pass: `r0 = 1; exit`.
#[expect(unsafe_code, reason = "a bpf(2) call")]
fn program(attach_type: u32) -> OwnedFd {
    let instructions: [u64; 2] = [0x1_0000_00b7, 0x95];
    let mut name = [0; 16];
    name[..8].copy_from_slice(b"harmless");
    let load = Load {
        kind: 18, // BPF_PROG_TYPE_CGROUP_SOCK_ADDR
        count: 2,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log: [0; 2],
        version_and_flags: 0,
        name,
        interface: 0,
        attach_type,
    };
    // SAFETY: what the attributes point to lives through the call; the
    // descriptor that it returns is new.
    unsafe {
        let fd = libc::syscall(libc::SYS_bpf, 5, &raw const load, size_of::<Load>());
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd as i32)
    }
}

#[test]
fn what_the_helper_attaches_is_seen_until_its_link_is_closed() {
    let name = format!("amb-B-hooks-{}", std::process::id());
    let group = Cgroup::create(&own_cgroup().unwrap(), &name).unwrap();
    let (helper, served) = on_a_thread();
    let connect4 = 10;
    let program = program(connect4);
    let link = helper
        .relink(program.as_fd(), group.as_fd(), connect4)
        .unwrap();
    let ours = || {
        let attached = others_attached(group.path()).unwrap();
        attached
            .into_iter()
            .filter(|a| a.name == "harmless" && a.hook == "connect4")
            .count()
    };
    assert_eq!(ours(), 1);
    drop(helper);
    served.join().unwrap().unwrap();
    drop(link);
    // A process that another test is forking may hold a copy of it until it
    // executes its program.
    while ours() != 0 {
        std::thread::yield_now();
    }
    fs::remove_dir(group.path()).unwrap();
}
