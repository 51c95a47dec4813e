//! What a proxy that was taken over asks its helper for: the messages are
//! written here as it would write them.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};
use tempfile::tempdir;

use super::*;

/// The other end of a helper, in the hands of somebody else.
struct TakenOver(Helper);

impl TakenOver {
    /// Asks in one datagram, as it is.
    fn say(&self, text: &str, fds: &[BorrowedFd<'_>]) -> Value {
        let channel = self.0.channel.as_fd();
        descriptors::send(channel, text.as_bytes(), fds).unwrap();
        loop {
            let (text, _) = descriptors::receive(channel).unwrap().expect("it answers");
            let answer: Value = serde_json::from_slice(&text).unwrap();
            if answer["reply"] != "More" {
                return answer["reply"].clone();
            }
        }
    }

    #[track_caller]
    fn is_refused(&self, request: Value, fds: &[BorrowedFd<'_>]) {
        let text = json!({ "number": 1, "request": request }).to_string();
        let reply = self.say(&text, fds);
        assert!(reply["Failed"].is_object(), "{text}: {reply}");
    }
}

/// Ends a helper of the test's own, which undoes what it was told.
fn end(taken_over: TakenOver, served: std::thread::JoinHandle<io::Result<()>>) {
    drop(taken_over);
    served.join().unwrap().unwrap();
}

#[test]
fn no_process_is_signalled_but_those_of_the_command() {
    let _turn = turn();
    let (helper, served) = on_a_thread();
    let made = helper.make_cgroup().unwrap();
    helper.seal().unwrap();
    let taken_over = TakenOver(helper);
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = sleeper.id();
    let signal = |pid: i64, number: i32| json!({ "Signal": { "pid": pid, "number": number } });
    // Not in the cgroup; all processes; a group; nobody.
    for pid in [i64::from(pid), -1, 0, 1, -i64::from(pid)] {
        taken_over.is_refused(signal(pid, libc::SIGTERM), &[]);
    }
    fs::write(made.path().join("cgroup.procs"), pid.to_string()).unwrap();
    // Nothing that `exec` would not forward.
    for number in [
        libc::SIGKILL,
        libc::SIGSTOP,
        libc::SIGSEGV,
        0,
        -1,
        64,
        1_000,
    ] {
        taken_over.is_refused(signal(pid.into(), number), &[]);
    }
    assert!(sleeper.try_wait().unwrap().is_none(), "it lives");
    taken_over.0.signal(pid as i32, libc::SIGTERM).unwrap();
    sleeper.wait().unwrap();
    // There is one cgroup, and it is made before the start.
    taken_over.is_refused("MakeCgroup".into(), &[]);
    let path = made.path().to_owned();
    end(taken_over, served);
    assert!(!path.exists());
}

#[test]
fn nothing_is_registered_once_others_may_speak() {
    let scratch = tempdir().unwrap();
    let (helper, served) = on_a_thread();
    register(&helper, vec![target("/sys/fs/cgroup/ours")]);
    helper.seal().unwrap();
    let taken_over = TakenOver(helper);
    let directory = fs::File::open(scratch.path()).unwrap();
    fs::create_dir(scratch.path().join("victim")).unwrap();
    fs::write(scratch.path().join("victim").join(ADMIN_SOCKET), "").unwrap();
    let victim = scratch.path().join("victim");
    let config = scratch.path().join("config");
    fs::write(&config, "/sys/fs/cgroup/victim\n").unwrap();
    for request in [
        json!({ "Register": { "targets": [{ "cgroup": "/sys/fs/cgroup/victim" }] } }),
        json!({ "Register": { "targets": [], "config": config } }),
        json!("MakeCgroup"),
        json!("RemoveAdminDirectory"),
        json!({ "RemoveAdminDirectory": victim }),
        json!({ "RemoveCgroup": "/sys/fs/cgroup/victim" }),
    ] {
        taken_over.is_refused(request, &[directory.as_fd()]);
    }
    end(taken_over, served);
    assert!(victim.join(ADMIN_SOCKET).exists());
}

#[test]
fn no_cgroup_and_no_namespace_but_those_registered() {
    let (ours, theirs) = (Named::new("ours"), Named::new("theirs"));
    let path = |named: &Named| Path::new("/run/netns").join(&named.0);
    let (helper, served) = on_a_thread();
    let inside = Target {
        netns: Some(path(&ours)),
        ..target("/sys/fs/cgroup/ours")
    };
    register(&helper, vec![inside]);
    // Takes note of the port.
    let rules = json!({ "cgroups": ["/sys/fs/cgroup/ours"] });
    helper
        .install_iptables(&Netns::own().unwrap(), rules)
        .unwrap_err();
    let known = helper.netns(&path(&ours)).unwrap();
    helper.seal().unwrap();
    let taken_over = TakenOver(helper);
    for path in [
        path(&theirs),
        "/etc/passwd".into(),
        "/proc/1/ns/net".into(),
        "/proc/self/ns/net".into(),
        "/dev/watchdog".into(),
        format!("{}/../{}", path(&ours).display(), theirs.0).into(),
    ] {
        taken_over.is_refused(json!({ "OpenNetns": path }), &[]);
        taken_over.is_refused(json!({ "OpenRoot": path }), &[]);
    }
    // It has the descriptor all the same, or one of something else.
    let netns = theirs.open();
    let null = fs::File::open("/dev/null").unwrap();
    let sockets = |count: u32, mark: Option<u32>| json!({ "Sockets": { "family": "V4", "kind": "Stream", "count": count, "mark": mark } });
    let listener = |addr: &str, count: u32, transparent: bool| {
        json!({ "Listener": {
            "addr": addr, "count": count, "v6_only": false, "transparent": transparent,
            "reach": "Loopback",
        }})
    };
    let rules = |cgroup: &str, mark: Option<u32>| json!({ "InstallIptables": { "cgroups": [cgroup], "mark": mark } });
    for fd in [netns.as_fd(), null.as_fd()] {
        taken_over.is_refused(sockets(1, None), &[fd]);
        taken_over.is_refused(listener("127.0.0.1:4001", 1, false), &[fd]);
        taken_over.is_refused(rules("/sys/fs/cgroup/ours", None), &[fd]);
        taken_over.is_refused("RemoveIptables".into(), &[fd]);
        taken_over.is_refused(
            json!({ "RemoveTokenPrefix": { "proxy_port": 4_001 } }),
            &[fd],
        );
    }
    taken_over.is_refused(sockets(1, None), &[]);
    let known = [known.as_fd()];
    taken_over.is_refused(sockets(65_535, None), &known);
    taken_over.is_refused(sockets(1, Some(7)), &known);
    let mut open = listener("0.0.0.0:4001", 1, false);
    open["Listener"]["reach"] = "Anywhere".into();
    taken_over.is_refused(open, &known);
    taken_over.is_refused(listener("0.0.0.0:80", 1, false), &known);
    taken_over.is_refused(listener("127.0.0.1:0", 1, false), &known);
    taken_over.is_refused(listener("192.0.2.1:4001", 1, false), &known);
    taken_over.is_refused(listener("127.0.0.1:4001", 1, true), &known);
    taken_over.is_refused(listener("127.0.0.1:4001", 65_535, false), &known);
    taken_over.is_refused(
        json!({ "RemoveTokenPrefix": { "proxy_port": 4_002 } }),
        &known,
    );
    taken_over.is_refused(rules("/sys/fs/cgroup/theirs", None), &known);
    taken_over.is_refused(rules("/sys/fs/cgroup/ours\nCOMMIT", None), &known);
    taken_over.is_refused(rules("/sys/fs/cgroup/ours", Some(7)), &known);
    let theirs = json!([{ "cgroup": "/sys/fs/cgroup/theirs", "netns": null }]);
    taken_over.is_refused(json!({ "StartLoader": theirs }), &[null.as_fd()]);
    end(taken_over, served);
}

#[test]
fn a_root_is_that_of_a_process_and_no_other_directory() {
    let scratch = tempdir().unwrap();
    symlink("/etc", scratch.path().join("root")).unwrap();
    let (helper, served) = on_a_thread();
    // Looks like the files of a process, and is none.
    let fake = scratch.path().join("ns/net");
    let mut inside = Command::new("sleep");
    inside.arg("60");
    let mut process = inside.spawn().unwrap();
    let real = PathBuf::from(format!("/proc/{}/ns/net", process.id()));
    let named = [&fake, &real].map(|netns| Target {
        netns: Some(netns.clone()),
        ..target("/sys/fs/cgroup/ours")
    });
    register(&helper, named.to_vec());
    helper.root_of(&fake).unwrap_err();
    let root = helper.root_of(&real).unwrap();
    let found = fs::read_link(format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&root)
    ))
    .unwrap();
    assert_eq!(found, Path::new("/"));
    process.kill().unwrap();
    process.wait().unwrap();
    drop(helper);
    served.join().unwrap().unwrap();
}

#[test]
fn the_configuration_names_more_unless_somebody_else_wrote_it() {
    use std::os::unix::fs::{PermissionsExt, chown};

    let scratch = tempdir().unwrap();
    let config = scratch.path().join("config");
    fs::write(&config, "/sys/fs/cgroup/first\n").unwrap();
    let (helper, served) = on_a_thread();
    let registration = Registration {
        targets: vec![target("/sys/fs/cgroup/first")],
        config: Some(config.clone()),
    };
    helper.register(&registration).unwrap();
    helper.seal().unwrap();
    let taken_over = TakenOver(helper);
    let ask = |cgroup: &str| {
        let null = fs::File::open("/dev/null").unwrap();
        let request = json!({ "StartLoader": [target(cgroup)] });
        let text = json!({ "number": 1, "request": request }).to_string();
        let reply = taken_over.say(&text, &[null.as_fd()]);
        taken_over.0.end_loader().unwrap();
        reply
    };
    let is_refused = |cgroup: &str| ask(cgroup)["Failed"].is_object();
    assert!(is_refused("/sys/fs/cgroup/second"));
    fs::write(&config, "/sys/fs/cgroup/second\n").unwrap();
    assert_eq!(ask("/sys/fs/cgroup/second"), "Done");
    assert_eq!(ask("/sys/fs/cgroup/first"), "Done", "what was, stays");
    fs::write(&config, "/sys/fs/cgroup/third\n").unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(is_refused("/sys/fs/cgroup/third"));
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    chown(&config, Some(12_345), None).unwrap();
    assert!(is_refused("/sys/fs/cgroup/third"));
    // One that would keep it waiting is not opened for reading.
    fs::remove_file(&config).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(&config)
            .status()
            .unwrap()
            .success()
    );
    assert!(is_refused("/sys/fs/cgroup/third"));
    fs::remove_file(&config).unwrap();
    fs::write(
        &config,
        "/sys/fs/cgroup/../third\n/sys/fs/cgroup/a\u{85}b\nrelative\n",
    )
    .unwrap();
    for path in [
        "/sys/fs/cgroup/../third",
        "/sys/fs/cgroup/a\u{85}b",
        "relative",
    ] {
        assert!(is_refused(path), "{path}");
    }
    end(taken_over, served);
}

#[test]
fn what_is_no_message_is_refused_and_what_is_too_long_ends_the_conversation() {
    let (helper, served) = on_a_thread();
    let taken_over = TakenOver(helper);
    let deep = "[".repeat(100_000);
    for text in ["", " ", "{", "null", "\"Seal\"", "{\"number\":1}", &deep] {
        if !text.is_empty() {
            let reply = taken_over.say(text, &[]);
            assert!(reply["Failed"].is_object(), "{text}: {reply}");
        }
    }
    let null = fs::File::open("/dev/null").unwrap();
    taken_over.is_refused("Sockets".into(), &[null.as_fd(); descriptors::FDS_MAX]);
    let long = vec![b' '; descriptors::BYTES_MAX + 1];
    let sent = net::send(&taken_over.0.channel, &long, net::SendFlags::empty());
    assert_eq!(sent.unwrap(), long.len());
    assert!(served.join().unwrap().is_err());
}
