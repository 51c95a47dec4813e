//! The proxy between the two ends of an exchange, and all cases of a group with it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use ambassador_tests::proxy::{Scratch, one_upstream};
use ambassador_tests::server::{response, text};
use ambassador_tests::{Authority, Backend, Client, Proxy, Request, Server, ports};
use rustls::ClientConfig;

use super::case::{Begins, Case};
use super::end::{End, Role, TEXT};
use super::verdict::Verdict;

/// Plays all cases against the proxy as a server.
#[track_caller]
pub fn as_server(backend: Backend, cases: &[Case]) {
    let server = upstream();
    let mut front = Front::start(backend, server.address());
    // What may reach the upstream may do so when its connection has ended already.
    let (later, first): (Vec<_>, Vec<_>) = cases.iter().partition(|case| case.passes());
    let verdicts = first.into_iter().chain(later).map(|case| {
        let before = server.requests().len();
        let verdict = front.connect(case.begins).and_then(|mut end| {
            play(&mut end, case)?;
            match server.requests().len() > before {
                true if !case.passes() => Err("the upstream gets the request".to_owned()),
                _ => arrives(&end, &server),
            }
        });
        named(case, Role::Client, verdict)
    });
    expect_none(cases, verdicts.filter_map(Result::err).collect());
    assert!(front.proxy.is_running());
}

/// Plays all cases against the proxy as a client.
#[track_caller]
pub fn as_client(backend: Backend, cases: &[Case]) {
    let (address, listen) = (loopback(), loopback());
    let listener = TcpListener::bind(address).expect("the port is free");
    // It tries once, and never has enough of an upstream. One worker has one connection.
    let more = "protocol: http2\nretry: { attempts: 1 }\ncircuit_breaker: { failures: 10000 }";
    let config = one_upstream(listen, address, more);
    let mut proxy = Proxy::start(backend, &format!("workers: 1\n{config}"));
    let verdicts = cases.iter().map(|case| {
        let end = End::server(&listener, listen, case.asked, case.begins);
        let verdict = end.and_then(|mut end| {
            play(&mut end, case)?;
            let reply = end.expect_reply(case.reply());
            reply.map_err(|why| format!("{why}, after {}", end.story()))?;
            end.leave()
        });
        named(case, Role::Server, verdict)
    });
    expect_none(cases, verdicts.filter_map(Result::err).collect());
    assert!(proxy.is_running());
}

/// What fails of the cases against another server, which has this module's upstream
/// behind it. What gets there is its own matter.
pub fn against(server: SocketAddr, cases: &[Case]) -> Vec<String> {
    let cases = cases.iter().filter(|it| it.begins == Begins::Greeted);
    let verdicts = cases.map(|case| {
        let end = End::client(Client::connect(server), case.begins);
        named(
            case,
            Role::Client,
            end.and_then(|mut end| play(&mut end, case)),
        )
    });
    verdicts.filter_map(Result::err).collect()
}

fn play(end: &mut End, case: &Case) -> Verdict {
    (case.act(end.role))(end);
    let verdict = end.expect(case.expected(end.role));
    verdict.map_err(|why| format!("{why}, after {}", end.story()))
}

fn named(case: &Case, role: Role, verdict: Verdict) -> Verdict {
    verdict.map_err(|why| format!("{}\n    {why}", case.name(role)))
}

#[track_caller]
fn expect_none(cases: &[Case], wrong: Vec<String>) {
    let count = (wrong.len(), cases.len());
    assert!(wrong.is_empty(), "{count:?}:\n{}", wrong.join("\n"));
}

/// An upstream that sends content back, and text where there is none. It does not answer
/// for `/held`.
pub fn upstream() -> Server {
    Server::start(|connection| {
        while let Some(mut request) = connection.head()? {
            if request.target == "/held" {
                while connection.read(&mut [0; 4096])? > 0 {}
                return Ok(());
            }
            connection.body(&mut request)?;
            connection.record(&request);
            connection.write(answer(&request))?;
        }
        io::Result::Ok(())
    })
}

fn answer(request: &Request) -> Vec<u8> {
    if request.method == "HEAD" {
        let mut head = response("200 OK", "", TEXT);
        head.truncate(head.len() - TEXT.len());
        return head;
    }
    match request.body.is_empty() {
        true => text(TEXT),
        false => text(&String::from_utf8_lossy(&request.body)),
    }
}

/// The field that a request carries is there for the upstream.
fn arrives(end: &End, server: &Server) -> Verdict {
    let Some((name, value)) = end.carried else {
        return Ok(());
    };
    let request = server.last_request();
    let found = request.field(name).or_else(|| request.trailer(name));
    match found == Some(value) {
        true => Ok(()),
        false => Err(format!("the upstream gets {name} as {found:?}")),
    }
}

/// A proxy with a listener in clear and one with TLS.
struct Front {
    proxy: Proxy,
    clear: SocketAddr,
    secured: SocketAddr,
    trusts: Arc<ClientConfig>,
    _scratch: Scratch,
}

impl Front {
    #[track_caller]
    fn start(backend: Backend, endpoint: SocketAddr) -> Front {
        let scratch = Scratch::new();
        let authority = Authority::new("root");
        let leaf = authority.issue(&["in.test"]);
        let (cert, key) = leaf.write(&scratch, "server");
        let mut trusts = authority.client(None);
        trusts.alpn_protocols = vec![b"h2".to_vec()];
        let (clear, secured) = (loopback(), loopback());
        let tls = format!("cert: {}, key: {}", cert.display(), key.display());
        let config = format!(
            "listeners:\n  \
             - {{ name: clear, bind: \"{clear}\", protocol: http }}\n  \
             - {{ name: secured, bind: \"{secured}\", protocol: http, tls: {{ {tls} }} }}\n\
             upstreams: {{ web: {{ hosts: [web.test], endpoints: [\"{endpoint}\"] }} }}\n"
        );
        Front {
            proxy: Proxy::start(backend, &config),
            clear,
            secured,
            trusts: Arc::new(trusts),
            _scratch: scratch,
        }
    }

    /// A client: where it is silent, TLS has told that it speaks HTTP/2.
    fn connect(&self, begins: Begins) -> Result<End, String> {
        let client = match begins {
            Begins::Greeted => Client::connect(self.clear),
            Begins::Silent => {
                let mut client = Client::connect(self.secured);
                let agreed = client.secure(Arc::clone(&self.trusts), "in.test");
                agreed.map_err(|error| error.to_string())?;
                client
            }
        };
        End::client(client, begins)
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}
