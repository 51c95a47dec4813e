//! Real programs as they come: nginx behind the proxy, curl before it.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ambassador_tests::proxy::Scratch;
use ambassador_tests::{
    Backend, Cgroup, Client, Proxy, eventually, on_both_backends, os, ports, program,
};

on_both_backends!(curl_downloads_and_uploads_through_nginx);

/// An nginx of the test's own, in the foreground.
struct Nginx {
    child: Child,
    address: std::net::SocketAddr,
    scratch: Scratch,
}

impl Nginx {
    fn start() -> Nginx {
        let scratch = Scratch::new();
        let port = ports::free();
        let directory = scratch.path().display();
        let config = format!(
            "daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;\n\
             events {{}}\n\
             http {{\n  access_log off; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p;\n  \
             fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;\n  \
             server {{ listen 127.0.0.1:{port}; root {directory}/www; client_max_body_size 0;\n    \
             location = /put {{ client_body_in_file_only clean; proxy_pass_request_body off; proxy_set_header Content-Length \"\"; proxy_pass http://127.0.0.1:{port}/small; proxy_method GET; }}\n  }}\n}}\n"
        );
        let file = scratch.file("nginx.conf", &config);
        std::fs::create_dir(scratch.path().join("www")).expect("writable");
        let www = |name: &str, bytes: &[u8]| {
            std::fs::write(scratch.path().join("www").join(name), bytes).expect("writable");
        };
        www("small", b"small");
        www("large", &vec![b'n'; 20_000_000]);
        // Workers of a root nginx are root too without a master process.
        let child = Command::new("nginx")
            .arg("-c")
            .arg(file)
            .arg("-p")
            .arg(scratch.path())
            .stderr(Stdio::null())
            .spawn()
            .expect("`cargo xtask setup` installs nginx");
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        eventually("nginx listens", Duration::from_secs(5), || {
            Client::try_connect(address).is_some()
        });
        Nginx {
            child,
            address,
            scratch,
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = os::kill(self.child.id(), libc::SIGKILL);
        let _ = self.child.wait();
    }
}

fn curl_downloads_and_uploads_through_nginx(backend: Backend) {
    let nginx = Nginx::start();
    let cgroup = Cgroup::new();
    let config = format!(
        "upstreams: {{ web: {{ hosts: [10.1.2.3], endpoints: [\"{}\"] }} }}\n",
        nginx.address
    );
    let _proxy = Proxy::capturing(backend, &cgroup, &config);
    let curl = |arguments: &[&str]| {
        program::succeed(
            cgroup
                .command("curl")
                .args(["-sS", "-m30", "--fail"])
                .args(arguments),
        )
    };
    assert_eq!(curl(&["http://10.1.2.3/small"]), "small");
    assert_eq!(
        curl(&[
            "-w",
            "%{size_download}",
            "-o",
            "/dev/null",
            "http://10.1.2.3/large"
        ]),
        "20000000"
    );
    assert_eq!(curl(&["-r", "5-9", "http://10.1.2.3/large"]), "nnnnn");
    assert_eq!(
        curl(&["-Z", "http://10.1.2.3/small", "http://10.1.2.3/small?2"]),
        "smallsmall"
    );
    let large = nginx.scratch.path().join("www/large").display().to_string();
    assert_eq!(
        curl(&["-T", &large, "http://10.1.2.3/put"]),
        "small",
        "Expect: 100-continue and all"
    );
    assert!(curl(&["-I", "http://10.1.2.3/large"]).contains("20000000"));
    assert_eq!(curl(&["--http1.0", "http://10.1.2.3/small"]), "small");
}

#[test]
fn nginx_answers_without_a_proxy() {
    let nginx = Nginx::start();
    let large = nginx.scratch.path().join("www/large").display().to_string();
    let url = format!("http://{}/put", nginx.address);
    let mut curl = Command::new("curl");
    assert_eq!(
        program::succeed(curl.args(["-sS", "-m30", "--fail", "-T", &large, &url])),
        "small"
    );
    let mut client = Client::connect(nginx.address);
    client.send("GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.response("GET").body.len(), 20_000_000);
}
