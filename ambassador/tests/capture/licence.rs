//! What a proxy that was taken over has a loader do: the messages are written
//! here as it would write them.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use ambassador::testing::capture::settings::{Claims, OnFailure};
use ambassador::testing::workload::Helper;
use ambassador::testing::workload::helper::Errand;
use ambassador_ebpf::Verdict;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde_json::{Value, json};

use crate::fixture::{Cgroup, Proxy, pins_of, programs_named, register, settings};

/// A loader for what is registered for `cgroup`.
fn loader(helper: &Helper, cgroup: &Cgroup) -> OwnedFd {
    let targets = settings(&[cgroup]).targets;
    helper.start_loader(targets).expect("a loader")
}

/// What the loader answers first.
fn ask(loader: &OwnedFd, request: &Value) -> String {
    let text = request.to_string();
    send(loader, text.as_bytes(), SendFlags::empty()).expect("it listens");
    let mut answer = [0; 4096];
    let (_, length) = recv(loader, &mut answer, RecvFlags::empty()).expect("it answers");
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

fn attach_to(cgroup: &str, port: u16) -> Value {
    json!({ "Attach": {
        "jobs": [{
            "workload": { "number": 0, "target": { "cgroup": cgroup, "netns": null } },
            "share": 1,
            "connects": true,
            "datagrams": false,
        }],
        "proxy_port": port, "shards": 1, "pinned": false, "kernel_log": false,
    }})
}

pub fn a_loader_touches_nothing_but_what_is_registered() {
    let (ours, victim) = (Cgroup::new("licensed"), Cgroup::new("victim"));
    let mut refuse = settings(&[&victim]);
    refuse.on_failure = OnFailure::Refuse;
    let other_proxy = Proxy::start(&refuse, &Claims::default(), true);
    let victims_pins = pins_of(&victim);
    assert!(victims_pins > 0, "it is pinned");
    let victims_programs = programs_named(&victim.0, "connect4");

    let helper = Helper::start(Errand::Capture).expect("a helper");
    register(&helper, &settings(&[&ours]));
    helper.seal().expect("it answers");
    let theirs = settings(&[&victim]).targets;
    let error = helper.start_loader(theirs).expect_err("not registered");
    assert!(error.to_string().contains("registered"), "{error}");
    let late = ambassador::testing::workload::helper::Registration {
        targets: settings(&[&victim]).targets,
        config: None,
    };
    helper.register(&late).expect_err("sealed");

    let id = fs::metadata(&victim.0).expect("a directory").ino();
    let path = victim.0.to_str().expect("UTF-8");
    let own_id = fs::metadata(&ours.0).expect("a directory").ino();
    let hostile = [
        attach_to(path, 4_321),
        attach_to(&format!("{path}/../{}", victim.0.display()), 4_321),
        json!({ "Unpin": { "cgroup_id": id, "names": [] } }),
        json!({ "Unpin": { "cgroup_id": id, "names": ["connect4"] } }),
        json!({ "Unpin": { "cgroup_id": own_id, "names": ["../../../../etc/passwd"] } }),
        json!({ "Unpin": { "cgroup_id": own_id, "names": vec!["connect4"; 50] } }),
        json!({ "Pin": { "cgroup_id": id, "names": [] } }),
        json!({ "Pin": { "cgroup_id": own_id, "names": ["connect4"] } }),
        json!({ "Pin": { "cgroup_id": own_id, "names": ["a\nb"] } }),
    ];
    for request in hostile {
        let loader = loader(&helper, &ours);
        let answer = ask(&loader, &request);
        assert!(answer.contains("Failed"), "{request}: {answer}");
        drop(loader);
        helper.end_loader().expect("it has ended");
    }
    assert_eq!(pins_of(&victim), victims_pins);
    assert_eq!(programs_named(&victim.0, "connect4"), victims_programs);

    // What is registered is attached as ever, on the port that was said.
    let honest = loader(&helper, &ours);
    let answer = ask(&honest, &attach_to(ours.0.to_str().expect("UTF-8"), 4_321));
    assert!(answer.contains("Maps"), "{answer}");
    drop(honest);
    other_proxy.beat();
    assert_eq!(victim.connect("10.1.2.3:80"), "10.1.2.3:80");
    assert_eq!(other_proxy.count(Verdict::Captured), 1);
    other_proxy.clean();
}

/// A cgroup that is named by a link is not one: whoever has the link says which
/// it is.
pub fn a_link_to_a_cgroup_is_refused() {
    let cgroup = Cgroup::new("linked");
    let link = std::env::temp_dir().join(format!("amb-A-link-{}", std::process::id()));
    symlink(&cgroup.0, &link).expect("a link");
    let mut settings = settings(&[&cgroup]);
    settings.targets[0].cgroup = link.clone();
    let helper = Helper::start(Errand::Capture).expect("a helper");
    register(&helper, &settings);
    let loader = helper.start_loader(settings.targets).expect("a loader");
    let answer = ask(&loader, &attach_to(link.to_str().expect("UTF-8"), 4_321));
    fs::remove_file(link).expect("the link is there");
    assert!(answer.contains("Failed"), "{answer}");
}

/// The directory of pins is ours alone, or is not used: in a bpffs of the test's
/// own, which nobody else sees.
pub fn pins_of_a_squatter_are_refused() {
    std::thread::spawn(|| {
        mount_own_bpffs();
        fs::create_dir(PINS).expect("a fresh bpffs");
        fs::set_permissions(PINS, fs::Permissions::from_mode(0o700)).expect("it is ours");
        assert!(
            ambassador::testing::capture::all_pinned()
                .expect("ours")
                .is_empty()
        );
        fs::set_permissions(PINS, fs::Permissions::from_mode(0o777)).expect("it is ours");
        refused("anybody could have made what is in it");
        fs::set_permissions(PINS, fs::Permissions::from_mode(0o700)).expect("it is ours");
        chown(PINS, Some(12_345), None).expect("the test needs root");
        refused("somebody else's");
        fs::remove_dir(PINS).expect("it is empty");
        fs::create_dir("/sys/fs/bpf/elsewhere").expect("a fresh bpffs");
        symlink("/sys/fs/bpf/elsewhere", PINS).expect("bpffs knows links");
        refused("a link");
    })
    .join()
    .expect("none is used");
}

const PINS: &str = "/sys/fs/bpf/ambassador";

fn refused(why: &str) {
    let error = ambassador::testing::capture::all_pinned().expect_err(why);
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{why}");
    assert!(error.to_string().contains(PINS), "{error}");
}

#[expect(unsafe_code, reason = "unshare() and mount() are not in std")]
fn mount_own_bpffs() {
    // SAFETY: the strings are nul-terminated; only the calling thread changes
    // its mounts.
    let results = unsafe {
        let none = std::ptr::null();
        let (root, place, kind) = (c"/".as_ptr(), c"/sys/fs/bpf".as_ptr(), c"bpf".as_ptr());
        let private = libc::MS_REC | libc::MS_PRIVATE;
        [
            libc::unshare(libc::CLONE_NEWNS),
            libc::mount(none, root, none, private, std::ptr::null()),
            libc::mount(kind, place, kind, 0, std::ptr::null()),
        ]
    };
    assert_eq!(results, [0; 3], "the test needs root");
}
