//! The access log meets a file system that is full.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ambassador_tests::proxy::{Launch, Scratch, one_upstream};
use ambassador_tests::{
    Backend, Client, Proxy, Server, eventually, on_both_backends, ports, program,
};
use serde_json::Value;

on_both_backends!(every_line_is_whole_and_every_lost_one_counted);

const SOON: Duration = Duration::from_secs(10);
const LOST: &str = "ambassador_access_log_dropped_lines_total";

struct Scene {
    server: Server,
    scratch: Scratch,
    listen: SocketAddr,
    proxy: Proxy,
}

impl Scene {
    /// The disk is mounted where the proxy alone sees it, and ends with it.
    fn start(backend: Backend) -> Scene {
        let (server, scratch) = (Server::ok(), Scratch::new());
        let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let disk = scratch.path().display();
        let config = format!(
            "telemetry: {{ access_log: {{ path: {disk}/log }} }}\n{}",
            one_upstream(listen, server.address(), "")
        );
        let script = format!("mount -t tmpfs -o size=64k none {disk} && exec \"$@\"");
        let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
        let launch = Launch {
            wrapper: wrapper.map(str::to_owned).into(),
            ..Launch::default()
        };
        let proxy = Proxy::launch(backend, &config, launch);
        Scene {
            server,
            scratch,
            listen,
            proxy,
        }
    }

    fn requests(&self, count: usize, name: &str) {
        let mut client = Client::connect(self.listen);
        for number in 0..count {
            assert_eq!(client.get(&format!("/{name}{number}")).status, 200);
        }
    }

    fn log(&self) -> String {
        let root = PathBuf::from(format!("/proc/{}/root", self.proxy.pid()));
        let path = self.scratch.path().join("log");
        let path = root.join(path.strip_prefix("/").expect("it is absolute"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    fn lost(&self) -> usize {
        self.proxy.metric(LOST, &[]) as usize
    }

    /// Once lines and lost lines are this many.
    #[track_caller]
    fn expect(&self, requests: usize) {
        eventually("all are accounted for", SOON, || {
            self.log().lines().count() + self.lost() == requests
        });
        let log = self.log();
        assert!(log.ends_with('\n'), "the last line is whole");
        let paths: HashSet<String> = log
            .lines()
            .map(|line| {
                let line: Value = serde_json::from_str(line).unwrap_or_else(|error| {
                    panic!("{error}: {line}");
                });
                line["path"].as_str().expect("it is a request").to_owned()
            })
            .collect();
        assert_eq!(
            paths.len() + self.lost(),
            requests,
            "each stands there once"
        );
        assert_eq!(self.server.requests().len(), requests);
    }
}

fn every_line_is_whole_and_every_lost_one_counted(backend: Backend) {
    let scene = Scene::start(backend);
    scene.requests(600, "before");
    scene.expect(600);
    let lost = scene.lost();
    assert!(lost > 0, "the disk is full");
    let mut larger = Command::new("nsenter");
    program::succeed(
        larger
            .arg(format!("--mount=/proc/{}/ns/mnt", scene.proxy.pid()))
            .args(["mount", "-o", "remount,size=4m"])
            .arg(scene.scratch.path()),
    );
    scene.requests(20, "after");
    scene.expect(620);
    assert_eq!(scene.lost(), lost, "there is room again");
}
