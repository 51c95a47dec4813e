//! TLS towards the servers that people run: nginx, HAProxy, `openssl s_server`.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use ambassador_tests::program::Running;
use ambassador_tests::proxy::Scratch;
use ambassador_tests::{
    Authority, Backend, Cgroup, Client, Proxy, eventually, nginx, on_both_backends, program,
};

use crate::tls_upstream::{config, free, line};

on_both_backends!(
    nginx_is_spoken_to_in_both_versions,
    nginx_refuses_who_shows_no_certificate,
    haproxy_is_spoken_to,
    openssl_agrees_upon_what_both_know,
    what_a_program_sends_in_clear_is_encrypted,
    keys_change_amid_a_connection,
);

/// A server of another program, and what it is spoken to with.
struct Peer {
    scratch: Scratch,
    address: SocketAddr,
    /// `ca: FILE`.
    ca: String,
    /// `, cert: FILE, key: FILE` of a client that it accepts.
    client: String,
    _running: Option<Running>,
}

impl Peer {
    /// Its files; `server.pem` is for `web.test`.
    fn new() -> Peer {
        let scratch = Scratch::new();
        let authority = Authority::new("root");
        let ca = scratch.file("ca.pem", &authority.pem);
        let leaf = authority.issue(&["web.test"]);
        leaf.write(&scratch, "server");
        scratch.file("both.pem", &format!("{}{}", leaf.pem, leaf.key));
        let (cert, key) = authority.issue(&["client.test"]).write(&scratch, "client");
        Peer {
            address: free(),
            ca: format!("ca: {}", ca.display()),
            client: format!(", cert: {}, key: {}", cert.display(), key.display()),
            scratch,
            _running: None,
        }
    }

    /// Runs it until the test is over.
    fn run(mut self, command: &mut Command) -> Peer {
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        self._running = Some(Running::start(quiet.stdin(Stdio::null())));
        let address = self.address;
        eventually("it listens", Duration::from_secs(10), || {
            Client::try_connect(address).is_some()
        });
        self
    }

    /// It says with which version, to which name and if to a known client.
    fn nginx(protocols: &str, client: &str) -> Peer {
        let mut peer = Peer::new();
        let server = format!(
            "listen {} ssl; ssl_certificate server.pem; ssl_certificate_key server.key;\n\
             ssl_protocols {protocols}; ssl_client_certificate ca.pem; ssl_verify_client {client};\n\
             return 200 \"$ssl_protocol $ssl_server_name $ssl_client_verify $http_x_request_id\";",
            peer.address
        );
        peer._running = Some(nginx::start(&peer.scratch, peer.address, &server));
        peer
    }

    fn haproxy(options: &str) -> Peer {
        let peer = Peer::new();
        let directory = peer.scratch.path().display();
        let text = format!(
            "defaults\n  mode http\n  timeout client 10s\n  timeout http-request 10s\n\
             frontend f\n  bind {} ssl crt {directory}/both.pem ca-file {directory}/ca.pem {options}\n  \
             http-request return status 200 content-type text/plain \
             lf-string \"%[ssl_fc_protocol] %[ssl_fc_sni] %[ssl_c_verify]\"\n",
            peer.address
        );
        let file = peer.scratch.file("haproxy.cfg", &text);
        peer.run(Command::new("haproxy").args(["-db", "-f"]).arg(file))
    }

    /// It tells of its session where it is asked for a page.
    fn openssl(options: &[&str]) -> Peer {
        let peer = Peer::new();
        let mut openssl = peer.s_server();
        peer.run(openssl.arg("-www").args(options))
    }

    fn s_server(&self) -> Command {
        let mut openssl = Command::new("openssl");
        openssl
            .current_dir(self.scratch.path())
            .args(["s_server", "-accept", &self.address.to_string()])
            .args(["-cert", "server.pem", "-key", "server.key"]);
        openssl
    }

    /// What a request by a proxy with these settings is told, or why not.
    fn ask(&self, backend: Backend, more: &str) -> Result<String, String> {
        let listen = free();
        let tls = format!("tls: {{ {}{more} }}", self.ca);
        let proxy = Proxy::start(backend, &config(listen, self.address, &tls));
        let answer = Client::connect(listen).get("/asked");
        let line = line(&proxy, "/asked");
        match answer.status {
            200 => Ok(answer.text()),
            _ => {
                let told = (answer.status, answer.reason());
                assert_eq!(told, (502, "tls-failed"), "{line}");
                Err(line["detail"].as_str().unwrap_or_default().to_owned())
            }
        }
    }
}

fn nginx_is_spoken_to_in_both_versions(backend: Backend) {
    for (protocols, version) in [("TLSv1.2", "TLSv1.2"), ("TLSv1.2 TLSv1.3", "TLSv1.3")] {
        let peer = Peer::nginx(protocols, "optional");
        let told = peer.ask(backend, "").expect("it answers");
        assert!(
            told.starts_with(&format!("{version} web.test NONE ")),
            "{told}"
        );
        let told = peer.ask(backend, &peer.client).expect("it answers");
        assert!(
            told.starts_with(&format!("{version} web.test SUCCESS ")),
            "{told}"
        );
    }
}

fn nginx_refuses_who_shows_no_certificate(backend: Backend) {
    let peer = Peer::nginx("TLSv1.2 TLSv1.3", "on");
    assert!(peer.ask(backend, &peer.client).is_ok());
    let listen = free();
    let tls = format!("tls: {{ {} }}", peer.ca);
    let _proxy = Proxy::start(backend, &config(listen, peer.address, &tls));
    // nginx lets the handshake pass, and answers the request.
    let answer = Client::connect(listen).get("/");
    assert_eq!((answer.status, answer.reason()), (400, ""));
}

fn haproxy_is_spoken_to(backend: Backend) {
    for (options, version) in [
        ("ssl-max-ver TLSv1.2", "TLSv1.2"),
        ("ssl-min-ver TLSv1.3", "TLSv1.3"),
    ] {
        let peer = Peer::haproxy(&format!("{options} alpn h2,http/1.1 verify required"));
        let told = peer.ask(backend, &peer.client);
        assert_eq!(told, Ok(format!("{version} web.test 0")));
        let refused = peer.ask(backend, "").expect_err("it shows no certificate");
        assert_eq!(refused, "refused-by-peer");
    }
}

fn openssl_agrees_upon_what_both_know(backend: Backend) {
    let weak = ["-cipher", "ALL:@SECLEVEL=0"];
    for (options, told) in [
        (&["-tls1_2"][..], Ok("Protocol  : TLSv1.2")),
        (&["-tls1_3"], Ok("New, TLSv1.3")),
        (
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"],
            Ok("ECDHE-ECDSA-AES256-GCM-SHA384"),
        ),
        (
            &["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
            Ok("TLS_CHACHA20_POLY1305_SHA256"),
        ),
        (&["-tls1_3", "-groups", "P-384"], Ok("New, TLSv1.3")),
        (&["-alpn", "http/1.1"], Ok("New, TLSv1.3")),
        (&["-alpn", "h3"], Err("no-common-protocol")),
        (
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"],
            Err("nothing-in-common"),
        ),
        (&["-tls1_1", weak[0], weak[1]], Err("no-common-version")),
        (&["-tls1", weak[0], weak[1]], Err("no-common-version")),
        (
            &["-Verify", "1", "-verify_return_error"],
            Err("refused-by-peer"),
        ),
    ] {
        let peer = Peer::openssl(options);
        match (peer.ask(backend, ""), told) {
            (Ok(page), Ok(told)) => assert!(page.contains(told), "{options:?}: {page}"),
            (asked, told) => assert_eq!(asked, told.map(str::to_owned).map_err(str::to_owned)),
        }
    }
    let old = Peer::openssl(&["-tls1_2"]);
    let refused = old.ask(backend, ", min_version: \"1.3\"");
    assert_eq!(refused, Err("no-common-version".to_owned()));
}

fn what_a_program_sends_in_clear_is_encrypted(backend: Backend) {
    let peer = Peer::nginx("TLSv1.3", "on");
    let cgroup = Cgroup::new();
    let text = format!(
        "upstreams: {{ web: {{ hosts: [web.test, \"10.1.2.3:80\"], endpoints: [\"{}\"], \
         tls: {{ {}{} }} }} }}\n",
        peer.address, peer.ca, peer.client
    );
    let _proxy = Proxy::capturing(backend, &cgroup, &text);
    let mut curl = cgroup.command("curl");
    curl.args([
        "-sS",
        "-m20",
        "--resolve",
        "web.test:80:10.1.2.3",
        "http://web.test/",
    ]);
    let told = program::succeed(&mut curl);
    assert!(told.starts_with("TLSv1.3 web.test SUCCESS "), "{told}");
}

fn keys_change_amid_a_connection(backend: Backend) {
    let peer = Peer::new();
    let mut command = peer.s_server();
    let mut server = command
        .arg("-tls1_3")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("`cargo xtask setup` installs openssl");
    let mut typed = server.stdin.take().expect("it is piped");
    eventually("it listens", Duration::from_secs(10), || {
        Client::try_connect(peer.address).is_some()
    });
    let listen = free();
    let text = format!(
        "listeners: [{{ name: db, bind: \"{listen}\", protocol: tcp, upstream: db }}]\n\
         upstreams: {{ db: {{ endpoints: [\"{}\"], tls: {{ {}, sni: web.test }} }} }}\n",
        peer.address, peer.ca
    );
    let proxy = Proxy::start(backend, &text);
    let mut client = Client::connect(listen);
    client.send("up\n");
    proxy.expect_metric(
        crate::tls_upstream::HANDSHAKES,
        &[("upstream", "db"), ("outcome", "completed")],
        1.0,
    );
    // `k` and `K` alone in a line have it send new keys, and ask for new ones.
    for line in ["one\n", "k\n", "two\n", "K\n", "three\n"] {
        typed.write_all(line.as_bytes()).expect("it reads on");
        typed.flush().expect("it reads on");
        if line.len() > 2 {
            assert_eq!(client.exactly(line.len()), line.as_bytes());
            client.send(line);
        }
        // The program takes one command from what it reads at once.
        std::thread::sleep(Duration::from_millis(100));
    }
    let _ = server.kill();
    let output = server.wait_with_output().expect("the child is ours");
    let said = String::from_utf8_lossy(&output.stdout);
    for line in ["up\n", "one\n", "two\n", "three\n"] {
        assert!(said.contains(line), "{said}");
    }
}
