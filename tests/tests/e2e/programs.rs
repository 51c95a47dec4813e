//! Real programs as they come: nginx behind the proxy, curl before it.

use std::net::SocketAddr;
use std::process::Command;

use ambassador_tests::program::Running;
use ambassador_tests::proxy::Scratch;
use ambassador_tests::{Backend, Cgroup, Client, Proxy, nginx, on_both_backends, ports, program};

on_both_backends!(curl_downloads_and_uploads_through_nginx);

/// An nginx of the test's own.
struct Nginx {
    address: SocketAddr,
    scratch: Scratch,
    _running: Running,
}

impl Nginx {
    fn start() -> Nginx {
        let scratch = Scratch::new();
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        std::fs::create_dir(scratch.path().join("www")).expect("writable");
        let www = |name: &str, bytes: &[u8]| {
            std::fs::write(scratch.path().join("www").join(name), bytes).expect("writable");
        };
        www("small", b"small");
        www("large", &vec![b'n'; 20_000_000]);
        let server = format!(
            "listen {address}; root {}/www; client_max_body_size 0;\n\
             location = /put {{ client_body_in_file_only clean; proxy_pass_request_body off; \
             proxy_set_header Content-Length \"\"; proxy_pass http://{address}/small; \
             proxy_method GET; }}",
            scratch.path().display()
        );
        Nginx {
            _running: nginx::start(&scratch, address, &server),
            address,
            scratch,
        }
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
