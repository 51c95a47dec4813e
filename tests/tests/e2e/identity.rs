//! Who the proxy is after the start, and what it can open again as that one.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use ambassador_tests::program::Running;
use ambassador_tests::proxy::{Launch, Scratch, ambassador, one_upstream};
use ambassador_tests::{
    Backend, Cgroup, Client, Proxy, Server, eventually, on_both_backends, ports, program,
};

use crate::helper_gone::Pair;
use crate::helper_replaced::{kill, next};

on_both_backends!(
    every_thread_is_nobody_in_particular,
    the_user_of_the_file_is_the_one,
    what_only_root_may_read_is_read_again,
    another_helper_knows_what_the_first_one_did,
    a_log_that_only_root_may_write_is_made_anew,
    nothing_is_read_or_written_through_a_link,
    a_reload_gets_only_what_the_user_may,
    a_socket_in_a_directory_of_root_goes_with_the_proxy,
);

const SOON: Duration = Duration::from_secs(10);

fn listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

/// The values of a field in the status of every thread.
pub(crate) fn of_threads(pid: u32, field: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let value = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    tasks.filter_map(|task| value(task.ok()?)).collect()
}

#[track_caller]
pub(crate) fn assert_all(pid: u32, field: &str, wanted: &str) {
    let found = of_threads(pid, field);
    assert!(!found.is_empty());
    for value in found {
        assert_eq!(value, wanted, "{field}");
    }
}

/// Real, effective, saved and that of files.
pub(crate) fn four(id: u32) -> String {
    format!("{id} {id} {id} {id}")
}

/// No core, no look at its memory by one of the same user.
#[track_caller]
pub(crate) fn assert_private(pid: u32) {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
    let core = limits.lines().find(|line| line.starts_with("Max core"));
    let core: Vec<&str> = core.expect("Linux has it").split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"]);
    // These files belong to the user of the process, where that is dumpable.
    let of = fs::metadata(format!("/proc/{pid}/environ")).expect("it runs");
    assert_eq!((of.uid(), of.gid()), (0, 0));
}

/// The processes that have this parent.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let list = fs::read_to_string(path).expect("it runs");
    list.split_whitespace()
        .map(|pid| pid.parse().expect("a number"))
        .collect()
}

fn every_thread_is_nobody_in_particular(backend: Backend) {
    let server = Server::ok();
    let cgroup = Cgroup::new();
    let listen = listen();
    let config = one_upstream(listen, server.address(), "");
    let proxy = Proxy::capturing(backend, &cgroup, &config);
    assert_eq!(Client::connect(listen).get("/").status, 200);
    let pid = proxy.pid();
    let uid: u32 = of_threads(pid, "Uid")[0]
        .split_whitespace()
        .next()
        .and_then(|uid| uid.parse().ok())
        .expect("a number");
    let passwd = fs::read_to_string("/etc/passwd").expect("it is there");
    let is_taken = |line: &str| line.split(':').nth(2) == Some(&uid.to_string());
    if !passwd.lines().any(|line| line.starts_with("ambassador:")) {
        assert!(!passwd.lines().any(is_taken), "{uid}");
        assert!(uid > 1_000_000, "{uid}");
        assert_all(pid, "Uid", &four(uid));
        assert_all(pid, "Gid", &four(uid));
    }
    assert_all(pid, "Groups", "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_all(pid, set, "0000000000000000");
    }
    assert_all(pid, "NoNewPrivs", "1");
    // Behind a filter of system calls.
    assert_all(pid, "Seccomp", "2");
    assert_private(pid);

    let helper = children(pid);
    assert_eq!(helper.len(), 1, "the helper alone is left");
    assert_all(helper[0], "NoNewPrivs", "1");
    assert_all(helper[0], "Seccomp", "2");
    assert_private(helper[0]);
    let kept = u64::from_str_radix(&of_threads(helper[0], "CapBnd")[0], 16);
    // CAP_SETGID, CAP_SETUID, CAP_SETPCAP, CAP_SYS_MODULE, CAP_SYS_RAWIO,
    // CAP_SYS_BOOT, CAP_MAC_ADMIN: nothing here takes them.
    for capability in [6, 7, 8, 16, 17, 22, 33] {
        assert_eq!(kept.clone().expect("hexadecimal") & 1 << capability, 0);
    }
}

fn the_user_of_the_file_is_the_one(backend: Backend) {
    let server = Server::ok();
    for (user, uid, gid) in [("31234:31235", 31_234, 31_235), ("nobody", 65_534, 65_534)] {
        let listen = listen();
        let config = one_upstream(listen, server.address(), "");
        let wrapper = ["setpriv", "--groups=0,4,27"].map(str::to_owned).to_vec();
        let launch = Launch {
            wrapper,
            ..Launch::default()
        };
        let proxy = Proxy::launch(backend, &format!("user: {user}\n{config}"), launch);
        assert_eq!(Client::connect(listen).get("/").status, 200);
        assert_all(proxy.pid(), "Uid", &four(uid));
        assert_all(proxy.pid(), "Gid", &four(gid));
        assert_all(proxy.pid(), "Groups", "");
        assert!(proxy.admin_get("/config").contains(user));
        proxy.rewrite_config(&format!("user: 31236:31236\n{config}"));
        proxy.signal(libc::SIGHUP);
        eventually("it is refused", SOON, || {
            proxy.log().contains("user: needs a restart")
        });
    }
}

#[test]
fn a_user_that_there_is_not_is_69() {
    let scratch = Scratch::new();
    let config = scratch.file("a.yaml", "user: nosuchuser\n");
    let mut run = ambassador(Backend::Ring);
    let output = program::output(run.args(["run", "--config"]).arg(&config));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("user: there is no user nosuchuser"), "{said}");
}

/// Without the capabilities that it takes, `auto` says so, and a user that is
/// named is not passed over.
#[test]
fn who_cannot_become_another_says_what_is_missing() {
    let server = Server::ok();
    let config = one_upstream(listen(), server.address(), "");
    let wrapper = [
        "setpriv",
        "--bounding-set=-setuid,-setgid",
        "--inh-caps=-setuid,-setgid",
    ]
    .map(str::to_owned)
    .to_vec();
    let launch = || Launch {
        wrapper: wrapper.clone(),
        ..Launch::default()
    };
    let proxy = Proxy::launch(Backend::Ring, &config, launch());
    let said = proxy.log();
    assert!(
        said.contains("CAP_SETUID and CAP_SETGID is missing"),
        "{said}"
    );
    assert_all(proxy.pid(), "CapBnd", "0000000000000000");
    assert_private(proxy.pid());

    let named = format!("user: 31234:31234\n{config}");
    let mut proxy = Proxy::spawn(Backend::Ring, &named, launch());
    assert_eq!(proxy.wait(SOON).code(), Some(69));
    assert!(proxy.log().contains("CAP_SETUID"), "{}", proxy.log());
}

/// A proxy whose files are all in this directory, which is root's alone.
struct Private {
    scratch: Scratch,
    admin: SocketAddr,
    listen: SocketAddr,
    proxy: Running,
}

const LOG: &str = "telemetry: { access_log: { path: \"DIR/access.log\" } }\n";

impl Private {
    fn start(backend: Backend, server: &Server, more: &str) -> Private {
        let scratch = Scratch::new();
        mode(scratch.path(), 0o700);
        let token = scratch.file("token", "one\n");
        mode(&token, 0o600);
        let admin = listen();
        let listen = listen();
        let config = Self::config(&scratch, admin, listen, server, more);
        let file = scratch.file("a.yaml", &config);
        mode(&file, 0o600);
        let error = fs::File::create(scratch.path().join("error")).expect("it is writable");
        let proxy = Running::start(
            ambassador(backend)
                .args(["run", "--config"])
                .arg(&file)
                .stderr(error),
        );
        let private = Private {
            scratch,
            admin,
            listen,
            proxy,
        };
        eventually("it answers", SOON, || {
            Client::try_connect(listen).is_some_and(|mut client| client.get("/").status == 200)
        });
        private
    }

    fn config(
        scratch: &Scratch,
        admin: SocketAddr,
        listen: SocketAddr,
        server: &Server,
        more: &str,
    ) -> String {
        let directory = scratch.path().display().to_string();
        let upstream = one_upstream(listen, server.address(), "");
        format!(
            "admin: {{ listen: \"{admin}\", token_file: \"{directory}/token\" }}\n{}{upstream}",
            more.replace("DIR", &directory)
        )
    }

    fn replace(&self, name: &str, text: &str) {
        let new = self.scratch.file("new", text);
        mode(&new, 0o600);
        fs::rename(new, self.path(name)).expect("it is ours");
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.scratch.path().join(name)
    }

    fn said(&self) -> String {
        fs::read_to_string(self.path("error")).expect("it is there")
    }

    fn reload(&self) {
        ambassador_tests::os::kill(self.proxy.id(), libc::SIGHUP).expect("it runs");
    }

    /// The status of a change over TCP with this token.
    fn change(&self, token: &str) -> u16 {
        let mut client = Client::connect(self.admin);
        client.send(format!(
            "POST /upstreams/web/breaker/auto HTTP/1.1\r\nHost: localhost\r\n\
             Authorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n"
        ));
        client.response("POST").status
    }
}

fn what_only_root_may_read_is_read_again(backend: Backend) {
    let (one, two) = (Server::ok(), Server::ok());
    let mut private = Private::start(backend, &one, "");
    assert_ne!(of_threads(private.proxy.id(), "Uid")[0], "0 0 0 0");
    assert_eq!(private.change("one"), 200);
    private.replace("token", "two\n");
    assert_eq!((private.change("one"), private.change("two")), (401, 200));

    let seen = two.requests().len();
    let config = Private::config(&private.scratch, private.admin, private.listen, &two, "");
    private.replace("a.yaml", &config);
    eventually("the change is noticed", SOON, || {
        Client::connect(private.listen).get("/");
        two.requests().len() > seen
    });
    ambassador_tests::os::kill(private.proxy.id(), libc::SIGTERM).expect("it runs");
    assert_eq!(private.proxy.wait(SOON).code(), Some(0));
}

fn another_helper_knows_what_the_first_one_did(backend: Backend) {
    let server = Server::ok();
    let mut private = Private::start(backend, &server, "");
    let Pair { keeper, worker } = Pair::of(private.proxy.id());
    kill(worker);
    next(keeper, worker);
    private.replace("token", "two\n");
    assert_eq!((private.change("one"), private.change("two")), (401, 200));
    ambassador_tests::os::kill(private.proxy.id(), libc::SIGTERM).expect("it runs");
    assert_eq!(private.proxy.wait(SOON).code(), Some(0));
}

fn a_log_that_only_root_may_write_is_made_anew(backend: Backend) {
    let server = Server::ok();
    let private = Private::start(backend, &server, LOG);
    let lines =
        |name: &str| fs::read_to_string(private.path(name)).map_or(0, |text| text.lines().count());
    eventually("a line is there", SOON, || lines("access.log") > 0);
    fs::rename(private.path("access.log"), private.path("old.log")).expect("it is ours");
    private.reload();
    eventually("there is a new one", SOON, || {
        private.path("access.log").exists()
    });
    assert_eq!(Client::connect(private.listen).get("/").status, 200);
    eventually("it has the new line", SOON, || lines("access.log") > 0);
}

fn nothing_is_read_or_written_through_a_link(backend: Backend) {
    let server = Server::ok();
    let private = Private::start(backend, &server, LOG);
    let elsewhere = Scratch::new();
    let secret = elsewhere.file("secret", "secret\n");
    mode(&secret, 0o600);
    fs::remove_file(private.path("token")).expect("it is ours");
    symlink(&secret, private.path("token")).expect("it is ours");
    assert_eq!(private.change("secret"), 403);

    let target = elsewhere.path().join("log");
    fs::remove_file(private.path("access.log")).expect("it is ours");
    symlink(&target, private.path("access.log")).expect("it is ours");
    private.reload();
    eventually("it is refused", SOON, || {
        private.said().contains("cannot open the access log anew")
    });
    assert!(!target.exists());
}

fn a_reload_gets_only_what_the_user_may(backend: Backend) {
    let server = Server::ok();
    let private = Private::start(backend, &server, "");
    let config = |more: &str| {
        Private::config(
            &private.scratch,
            private.admin,
            private.listen,
            &server,
            more,
        )
    };
    private.replace("a.yaml", &config(LOG));
    eventually("it is refused", SOON, || {
        private.said().contains("configuration not reloaded")
    });
    let said = private.said();
    assert!(
        said.contains("cannot open the access log") && said.contains("`user`"),
        "{said}"
    );
    assert!(!private.path("access.log").exists());
    // A port that takes a privilege.
    let port = "listeners: [{ name: low, bind: \"127.0.0.1:81\" }]\n";
    let low = config("").replace(
        "listeners:\n",
        &port.replace("[{", "\n  - {").replace("}]", "}"),
    );
    private.replace("a.yaml", &low);
    eventually("it is refused too", SOON, || {
        private.said().contains("ports below 1024 need a restart")
    });
    assert_eq!(Client::connect(private.listen).get("/").status, 200);
}

fn a_socket_in_a_directory_of_root_goes_with_the_proxy(backend: Backend) {
    let server = Server::ok();
    let scratch = Scratch::new();
    let (listen, socket) = (listen(), scratch.path().join("admin.sock"));
    let config = format!(
        "admin: {{ listen: \"unix:{}\" }}\n{}",
        socket.display(),
        one_upstream(listen, server.address(), "")
    );
    let file = scratch.file("a.yaml", &config);
    let status = || {
        let address = format!("unix:{}", socket.display());
        let mut status = ambassador(backend);
        program::output(status.args(["status", "--admin", &address])).status
    };
    // The second start finds what a killed one has left.
    for end in [libc::SIGKILL, libc::SIGTERM] {
        let mut proxy = Running::start(ambassador(backend).args(["run", "--config"]).arg(&file));
        eventually("it answers", SOON, || status().success());
        let mode = fs::metadata(&socket).expect("it is there").mode();
        assert_eq!(mode & 0o777, 0o600);
        ambassador_tests::os::kill(proxy.id(), end).expect("it runs");
        proxy.wait(SOON);
    }
    assert!(!socket.exists());
}
