//! Certificates of OpenBao: short ones, issued anew while requests go, and revoked ones.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ambassador_tests::openbao::Issued;
use ambassador_tests::program::{self, Running};
use ambassador_tests::proxy::Scratch;
use ambassador_tests::server::text;
use ambassador_tests::{Backend, Client, OpenBao, Proxy, Server, eventually, on_both_backends, os};

use crate::credentials::replace;
use crate::load::Load;
use crate::tls_rotation::Mount;
use crate::tls_upstream::{HANDSHAKES, free, line};

on_both_backends!(
    no_request_fails_while_short_certificates_are_issued_anew,
    what_is_revoked_is_refused_on_both_sides,
);

const SOON: Duration = Duration::from_secs(10);
/// How long a certificate holds that is issued anew every [`RENEWED_EVERY`].
const SHORT: &str = "ttl=7s";
const RENEWED_EVERY: Duration = Duration::from_secs(2);
/// Two lives of a certificate.
const RENEWALS: usize = 7;

const SHOP: [&str; 2] = ["common_name=shop.test", "uri_sans=spiffe://mesh.test/shop"];
const STOCK: [&str; 2] = [
    "common_name=stock.test",
    "uri_sans=spiffe://mesh.test/stock",
];
const WEB: [&str; 1] = ["common_name=web.test"];

/// A certificate for the holder whom these fields describe.
fn issue(bao: &OpenBao, holder: &[&str], ttl: &str) -> Issued {
    bao.issue(&[holder, &[ttl]].concat())
}

/// A certificate where a program finds it: `mounted/tls.crt` and `mounted/tls.key`.
struct Holder {
    scratch: Scratch,
    mount: Mount,
}

impl Holder {
    fn of(issued: &Issued) -> Holder {
        let scratch = Scratch::new();
        let files = [("tls.crt", &*issued.chain), ("tls.key", &*issued.key)];
        let mount = Mount::new(&scratch, &files);
        Holder { scratch, mount }
    }

    fn renew(&mut self, issued: &Issued) {
        let files = [("tls.crt", &*issued.chain), ("tls.key", &*issued.key)];
        self.mount.put(&files);
    }

    /// `cert: FILE, key: FILE`.
    fn keys(&self) -> String {
        let (cert, key) = (self.mount.at("tls.crt"), self.mount.at("tls.key"));
        format!("cert: {cert}, key: {key}")
    }
}

/// nginx, which wants a certificate of its clients, and tells each of them what it was
/// and which of its processes says so.
struct Nginx {
    holder: Holder,
    address: SocketAddr,
    running: Running,
}

impl Nginx {
    fn start(root: &str, issued: &Issued) -> Nginx {
        let holder = Holder::of(issued);
        let (address, directory) = (free(), holder.scratch.path().display());
        holder.scratch.file("ca.pem", root);
        let text = format!(
            "daemon off; user root; worker_processes 1; pid {directory}/pid; \
             error_log {directory}/error.log;\nevents {{}}\n\
             http {{\n  access_log off; client_body_temp_path {directory}/b; \
             proxy_temp_path {directory}/p;\n  fastcgi_temp_path {directory}/f; \
             uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;\n  \
             server {{ listen {address} ssl; ssl_certificate mounted/tls.crt; \
             ssl_certificate_key mounted/tls.key;\n    ssl_client_certificate ca.pem; \
             ssl_verify_client on; ssl_verify_depth 2;\n    \
             return 200 \"$ssl_client_verify $ssl_client_serial $pid\"; }}\n}}\n",
        );
        let file = holder.scratch.file("nginx.conf", &text);
        let mut nginx = Command::new("nginx");
        nginx
            .arg("-c")
            .arg(file)
            .arg("-p")
            .arg(holder.scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let running = Running::start(&mut nginx);
        eventually("nginx listens", SOON, || {
            Client::try_connect(address).is_some()
        });
        Nginx {
            holder,
            address,
            running,
        }
    }

    /// Takes another certificate, as its users have it do that.
    fn renew(&mut self, issued: &Issued) {
        self.holder.renew(issued);
        os::kill(self.running.id(), libc::SIGHUP).expect("nginx runs");
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its processes outlive one that is killed.
        let _ = os::kill(self.running.id(), libc::SIGTERM);
        self.running.wait(SOON);
    }
}

/// A number as nginx writes it.
fn number(issued: &Issued) -> String {
    issued.serial.replace(':', "").to_uppercase()
}

/// A proxy that encrypts in front of a server in clear, which repeats who calls it.
struct Stock {
    holder: Holder,
    address: SocketAddr,
    proxy: Proxy,
    _server: Server,
}

impl Stock {
    /// `more` is what its listener says beside its certificate and its clients.
    fn start(backend: Backend, ca: &str, issued: &Issued, more: &str) -> Stock {
        let holder = Holder::of(issued);
        let server = Server::http(|request| {
            let caller = request.field("x-forwarded-client-cert");
            text(caller.unwrap_or("nobody"))
        });
        let address = free();
        let config = format!(
            "listeners: [{{ name: in, bind: \"{address}\", tls: {{ {}, client_ca: {ca}, \
             forward_client_cert: sanitize_set{more} }} }}]\n\
             upstreams: {{ app: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ upstream: app }}]\n",
            holder.keys(),
            server.address()
        );
        Stock {
            proxy: Proxy::start(backend, &config),
            holder,
            address,
            _server: server,
        }
    }
}

/// A proxy that programs call in clear: `web.test` is nginx, `stock.test` another proxy.
/// `more` is what both say beside `tls`.
fn shop(
    backend: Backend,
    (web, stock): (&Nginx, &Stock),
    tls: &str,
    more: &str,
) -> (Proxy, SocketAddr) {
    let listen = free();
    let config = format!(
        "telemetry: {{ access_log: {{ path: stdout }} }}\n\
         listeners: [{{ name: out, bind: \"{listen}\" }}]\nupstreams:\n  \
         web: {{ hosts: [web.test], endpoints: [\"{}\"], tls: {{ {tls} }}{more} }}\n  \
         stock: {{ hosts: [stock.test], endpoints: [\"{}\"], \
         tls: {{ {tls}, verify: \"spiffe://mesh.test/stock\" }}{more} }}\n",
        web.address, stock.address
    );
    (Proxy::start(backend, &config), listen)
}

/// What the server of this name says; an error where that is none with 200.
fn ask(client: &mut Client, host: &str, path: &str) -> Result<String, String> {
    client
        .try_send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .map_err(|error| error.to_string())?;
    match client.try_response("GET") {
        Some(answer) if answer.status == 200 => Ok(answer.text()),
        Some(answer) => Err(format!("{} {}", answer.status, answer.reason())),
        None => Err("no answer".to_owned()),
    }
}

/// What peers have said under load: of whom, and what was no answer at all.
#[derive(Default)]
struct Said {
    numbers: BTreeSet<String>,
    processes: BTreeSet<String>,
    callers: BTreeSet<String>,
    faults: Vec<String>,
}

impl Said {
    /// Whether nginx has seen a certificate of the authority.
    fn nginx(&mut self, answer: Result<String, String>) -> bool {
        let words = answer.as_deref().unwrap_or_default().split(' ');
        match words.collect::<Vec<_>>()[..] {
            ["SUCCESS", number, process] => {
                self.numbers.insert(number.to_owned());
                self.processes.insert(process.to_owned());
                true
            }
            _ => self.fault(answer),
        }
    }

    /// Whether the other proxy has seen who calls.
    fn stock(&mut self, answer: Result<String, String>) -> bool {
        match answer {
            Ok(caller) if caller.contains("URI=spiffe://mesh.test/shop") => {
                self.callers.insert(caller);
                true
            }
            answer => self.fault(answer),
        }
    }

    fn fault(&mut self, answer: Result<String, String>) -> bool {
        self.faults.push(format!("{answer:?}"));
        false
    }
}

fn no_request_fails_while_short_certificates_are_issued_anew(backend: Backend) {
    let bao = OpenBao::start();
    bao.mesh();
    let scratch = Scratch::new();
    let ca = scratch.file("ca.pem", &bao.root()).display().to_string();
    let mut web = Nginx::start(&bao.root(), &issue(&bao, &WEB, SHORT));
    let mut stock = Stock::start(backend, &ca, &issue(&bao, &STOCK, SHORT), "");
    let mut own = issue(&bao, &SHOP, SHORT);
    let mut holder = Holder::of(&own);
    let tls = format!("ca: {ca}, {}", holder.keys());
    let (proxy, listen) = shop(backend, (&web, &stock), &tls, "");

    let said: Arc<Mutex<Said>> = Arc::default();
    let told = Arc::clone(&said);
    let load = Load::start(move || {
        let (mut caller, told) = (Client::connect(listen), Arc::clone(&told));
        Box::new(move |_| {
            let nginx = ask(&mut caller, "web.test", "/");
            let stock = ask(&mut caller, "stock.test", "/");
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            let nginx = told.nginx(nginx);
            match told.stock(stock) && nginx {
                true => Ok(()),
                false => Err("see `faults`".to_owned()),
            }
        })
    });
    let mut due = Instant::now();
    for _ in 0..RENEWALS {
        due += RENEWED_EVERY;
        sleep(due.saturating_duration_since(Instant::now()));
        own = issue(&bao, &SHOP, SHORT);
        holder.renew(&own);
        stock.holder.renew(&issue(&bao, &STOCK, SHORT));
        web.renew(&issue(&bao, &WEB, SHORT));
        // Files are looked at as often as they change here: none is passed over.
        eventually("the new one is shown", SOON, || {
            let said = said.lock().unwrap_or_else(PoisonError::into_inner);
            said.numbers.contains(&number(&own))
        });
        for proxy in [&proxy, &stock.proxy] {
            let left = proxy.metric("ambassador_certificate_expiry_seconds", &[]);
            assert!(left > 0.0, "a certificate has ended in use: {left}");
        }
    }
    let result = load.stop();
    let (asked, failed) = (result.asked, result.failed.len());
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    let (numbers, processes) = (said.numbers.len(), said.processes.len());
    println!(
        "{asked} pairs of requests, {failed} failed; nginx saw {numbers} certificates in \
         {processes} processes, the listener {}",
        said.callers.len()
    );
    assert_eq!((failed, &said.faults), (0, &Vec::new()));
    assert!(asked > 500 && numbers >= RENEWALS, "{numbers}");
    assert!(processes >= RENEWALS - 1 && said.callers.len() >= 3);
    for proxy in [&proxy, &stock.proxy] {
        proxy.expect_metric("ambassador_certificate_reload_failures_total", &[], 0.0);
    }
}

fn what_is_revoked_is_refused_on_both_sides(backend: Backend) {
    const LONG: &str = "ttl=10m";
    // A list holds for new handshakes.
    const LEAVES: &str = ", pool: { max_lifetime: 500ms }, circuit_breaker: { failures: off }";
    let bao = OpenBao::start();
    bao.mesh();
    let scratch = Scratch::new();
    let ca = scratch.file("ca.pem", &bao.root()).display().to_string();
    let list = scratch.file("lists.pem", &bao.lists());
    let listed = format!("crl: {}", list.display());
    let first = issue(&bao, &WEB, LONG);
    let mut web = Nginx::start(&bao.root(), &first);
    let stock = Stock::start(
        backend,
        &ca,
        &issue(&bao, &STOCK, LONG),
        &format!(", {listed}"),
    );
    let own = issue(&bao, &SHOP, LONG);
    let mut holder = Holder::of(&own);
    let tls = format!("ca: {ca}, {}, {listed}", holder.keys());
    let (proxy, listen) = shop(backend, (&web, &stock), &tls, LEAVES);
    let get = |host: &str, path: &str| {
        let answer = ask(&mut Client::connect(listen), host, path);
        answer.map_err(|error| assert_eq!(error, "502 tls-failed"))
    };
    assert!(get("web.test", "/").is_ok() && get("stock.test", "/").is_ok());

    // The server.
    bao.write("mesh/revoke", &[&format!("serial_number={}", first.serial)]);
    replace(&list, &bao.lists());
    let mut tries = 0;
    eventually("nginx is refused", SOON, || {
        tries += 1;
        get("web.test", &format!("/{tries}")).is_err()
    });
    assert_eq!(line(&proxy, &format!("/{tries}"))["detail"], "revoked");
    assert!(get("stock.test", "/").is_ok());
    web.renew(&issue(&bao, &WEB, LONG));
    eventually("its next certificate is good", SOON, || {
        get("web.test", "/").is_ok()
    });

    // The client: curl with its certificate, and the proxy.
    let mut curl = Command::new("curl");
    curl.current_dir(holder.scratch.path().join("mounted"))
        // Over HTTP/2 some versions of it send before they read why they are refused.
        .args(["-sS", "-m10", "--http1.1"])
        .args(["--cert", "tls.crt", "--key", "tls.key"])
        .args(["--cacert", &ca, "--resolve"])
        .arg(format!("stock.test:{}:127.0.0.1", stock.address.port()))
        .arg(format!("https://stock.test:{}/", stock.address.port()));
    assert!(program::succeed(&mut curl).contains("URI=spiffe://mesh.test/shop"));
    bao.write("mesh/revoke", &[&format!("serial_number={}", own.serial)]);
    replace(&list, &bao.lists());
    let mut complaint = String::new();
    eventually("curl is refused", SOON, || {
        let output = program::output(&mut curl);
        complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        !output.status.success()
    });
    assert!(complaint.contains("revoked"), "{complaint}");
    let revoked = [("listener", "in"), ("outcome", "revoked")];
    assert!(stock.proxy.metric(HANDSHAKES, &revoked) >= 1.0);
    let mut tries = 0;
    eventually("the proxy is refused", SOON, || {
        tries += 1;
        get("stock.test", &format!("/stock/{tries}")).is_err()
    });
    let line = line(&proxy, &format!("/stock/{tries}"));
    assert_eq!(line["detail"], "refused-by-peer");
    holder.renew(&issue(&bao, &SHOP, LONG));
    eventually("its next certificate is good", SOON, || {
        get("stock.test", "/").is_ok()
    });
    assert!(program::succeed(&mut curl).contains("URI=spiffe://mesh.test/shop"));
}
