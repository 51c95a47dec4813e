//! The image: what is in it, and that it runs as the manifests say.

use std::fs;
use std::process::Command;
use std::time::Duration;

use ambassador_tests::program::{self, Running};
use ambassador_tests::server::text;
use ambassador_tests::{Cgroup, Netns, Server, eventually};

use crate::container::{self, Container};
use crate::manifest::{ambassador, document};

/// An address of the namespace that is not loopback.
const ADDRESS: &str = "10.98.0.1";

#[test]
fn nothing_is_in_the_image_but_binary_roots_and_licences() {
    let listed = program::succeed(Command::new("tar").arg("tzf").arg(container::layer()));
    let files: Vec<&str> = listed.lines().filter(|name| !name.ends_with('/')).collect();
    let wanted = [
        "ambassador",
        "etc/ssl/certs/ca-certificates.crt",
        "usr/share/doc/ambassador/LICENSE",
        "usr/share/doc/ambassador/THIRD-PARTY",
    ];
    assert_eq!(files, wanted);
    let image = Container::new();
    let licences = fs::read_to_string(image.files().join(wanted[3])).expect("it is text");
    for inside in ["aya-ebpf ", "hyper ", "the GNU C library"] {
        assert!(licences.contains(&format!("\n{inside}")), "{inside}");
    }
}

#[test]
fn the_layer_is_the_one_that_the_configuration_names() {
    let config = container::config();
    let plain = Command::new("gzip")
        .arg("-dc")
        .arg(container::layer())
        .output();
    let image = Container::new();
    let file = image.files().join("layer");
    fs::write(&file, plain.expect("gzip runs").stdout).expect("ours");
    let said = program::succeed(Command::new("sha256sum").arg(&file));
    let digest = said.split(' ').next().expect("a digest");
    assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{digest}"));
    assert_eq!(config["config"]["User"], "65532:65532");
}

#[test]
fn a_sidecar_serves_a_request_from_the_image_without_a_privilege() {
    let network = network();
    let upstream = Server::over(network.listen(format!("{ADDRESS}:8080")), |connection| {
        connection.serve_http(|_| text("from upstream"))
    });
    let sidecar = ambassador(&document("sidecar.yaml", "Deployment"));
    let image = Container::new();
    image.file(
        "etc/hosts",
        &format!("{ADDRESS} payments.default.svc.cluster.local\n"),
    );
    image.file("etc/resolv.conf", "nameserver 127.0.0.1\n");
    let proxy = Running::start(&mut image.command(&sidecar, &network));
    ready(&network, &format!("http://{ADDRESS}:15020/readyz"));
    assert_eq!(get(&network, "http://127.0.0.1:8081/"), "from upstream");
    assert!(upstream.last_request().head.contains("x-request-id"));
    let status = status(proxy.id());
    for line in ["Uid:\t65532", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{status}");
    }
}

#[test]
fn a_sidecar_with_a_file_serves_a_request_from_the_image() {
    let network = network();
    let _upstream = Server::over(network.listen(format!("{ADDRESS}:8080")), |connection| {
        connection.serve_http(|request| text(&request.target))
    });
    let sidecar = ambassador(&document("sidecar-config.yaml", "Deployment"));
    let map = document("sidecar-config.yaml", "ConfigMap");
    let image = Container::new();
    let config = map["data"]["ambassador.yaml"].as_str().expect("a text");
    image.file("etc/ambassador/ambassador.yaml", config);
    image.file(
        "etc/hosts",
        &format!(
            "{ADDRESS} payments.default.svc.cluster.local orders-db.default.svc.cluster.local\n"
        ),
    );
    image.file("etc/resolv.conf", "nameserver 127.0.0.1\n");
    let _proxy = Running::start(&mut image.command(&sidecar, &network));
    ready(&network, &format!("http://{ADDRESS}:15020/readyz"));
    assert_eq!(get(&network, "http://127.0.0.1:8081/payments/a"), "/a");
}

#[test]
fn a_node_captures_from_the_image_with_the_capabilities_of_the_manifest() {
    let network = network();
    let upstream = Server::over(network.listen(format!("{ADDRESS}:80")), |connection| {
        connection.serve_http(|_| text("captured"))
    });
    // The node's hierarchy, the group of the container, and that of the captured.
    let node = Cgroup::new();
    let groups = ["pod", "ambassador.slice"].map(|name| node.path().join(name));
    for group in &groups {
        fs::create_dir(group).expect("the group is ours");
    }
    let [pod, slice] = &groups;
    let daemon = ambassador(&document("node.yaml", "DaemonSet"));
    let map = document("node.yaml", "ConfigMap");
    let mut image = Container::new();
    let config = map["data"]["ambassador.yaml"].as_str().expect("a text");
    image.file("etc/ambassador/ambassador.yaml", config);
    image.mount(node.path(), "/sys/fs/cgroup");
    image.mount("/sys/fs/bpf".as_ref(), "/sys/fs/bpf");
    let mut proxy = Running::start(&mut inside(pod, image.command(&daemon, &network)));
    ready(&network, "http://127.0.0.1:15020/readyz");

    let mut curl = Command::new("nsenter");
    curl.arg(format!("--net={}", network.path().display()))
        .args(["curl", "-sS", &format!("http://{ADDRESS}/")]);
    assert_eq!(program::succeed(&mut inside(slice, curl)), "captured");
    assert!(upstream.last_request().head.contains("x-request-id"));
    assert!(status(proxy.id()).contains("CapEff:\t0000000000000000"));

    ambassador_tests::os::kill(proxy.id(), 15).expect("it runs");
    assert!(proxy.wait(Duration::from_secs(20)).success());
    for group in &groups {
        eventually("the group is empty", Duration::from_secs(5), || {
            fs::remove_dir(group).is_ok()
        });
    }
}

fn network() -> Netns {
    let network = Netns::new();
    network.ip(&["addr", "add", &format!("{ADDRESS}/32"), "dev", "lo"]);
    network
}

/// `command`, moved into a cgroup before it begins.
fn inside(group: &std::path::Path, command: Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
        .arg(group)
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    shell
}

/// A page as somebody in the namespace gets it.
fn get(network: &Netns, url: &str) -> String {
    program::succeed(&mut curl(network, url))
}

fn ready(network: &Netns, url: &str) {
    eventually("the proxy is ready", Duration::from_secs(20), || {
        program::output(&mut curl(network, url)).status.success()
    });
}

fn curl(network: &Netns, url: &str) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", network.path().display()))
        .args(["curl", "-sS", "--fail", "--max-time", "5", url]);
    command
}

fn status(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs")
}
