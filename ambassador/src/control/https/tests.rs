use std::future::Future;
use std::sync::Mutex;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::control::Files;

/// An authority that issues certificates.
pub(in crate::control) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(in crate::control) roots: Arc<RootCertStore>,
}

type Chain = (
    Vec<rustls_pki_types::CertificateDer<'static>>,
    PrivateKeyDer<'static>,
);

impl Ca {
    pub(in crate::control) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            roots: Arc::new(roots),
        }
    }

    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Chain {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (vec![certificate.der().clone()], key)
    }
}

/// A server, and what came in.
pub(in crate::control) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers each request with these bytes and closes.
    pub(in crate::control) async fn start(
        tls: Option<ServerConfig>,
        answer: impl Into<Vec<u8>>,
    ) -> Self {
        let answer = answer.into();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let tls = tls.map(|tls| TlsAcceptor::from(Arc::new(tls)));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream: Box<dyn Stream> = match &tls {
                    None => Box::new(stream),
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => continue,
                    },
                };
                let request = read_request(&mut *stream).await;
                seen.lock().unwrap().push(request);
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { address, requests }
    }

    pub(in crate::control) fn url(&self, scheme: &str, host: &str) -> ServerUrl {
        let port = self.address.port();
        ServerUrl::parse(&format!("{scheme}://{host}:{port}/token?a=b")).unwrap()
    }

    pub(in crate::control) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Up to the end that its length tells.
async fn read_request(stream: &mut dyn Stream) -> String {
    let mut request = Vec::new();
    loop {
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).await.unwrap_or(0);
        request.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if count == 0 || body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            return text;
        }
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello";

fn server(chain: Chain) -> ServerConfig {
    let builder = ServerConfig::builder().with_no_client_auth();
    builder.with_single_cert(chain.0, chain.1).unwrap()
}

pub(in crate::control) fn client(roots: &Arc<RootCertStore>) -> HttpsClient {
    let tls = ClientConfig::builder().with_root_certificates(Arc::clone(roots));
    HttpsClient {
        // No name server is asked: names of this file are in the hosts file.
        names: Arc::new(NameService::new(
            Files::Own {
                resolv_conf: "/dev/null".into(),
                hosts: "/etc/hosts".into(),
            },
            None,
        )),
        tls: Arc::new(tls.with_no_client_auth()),
        limits: Limits::default(),
    }
}

fn question<'a>(url: &'a ServerUrl, body: &str) -> Question<'a> {
    Question {
        url,
        method: Method::POST,
        fields: vec![(
            HeaderName::from_static("content-type"),
            HeaderValue::from_static("text/plain"),
        )],
        body: Secret::from(body.as_bytes().to_vec()),
    }
}

pub(in crate::control) fn run(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(test);
}

#[test]
fn a_verified_server_is_asked() {
    run(async {
        let ca = Ca::new();
        let server = Server::start(Some(server(ca.issue("localhost", |_| {}))), OK).await;
        let url = server.url("https", "localhost");
        let answer = client(&ca.roots)
            .ask(question(&url, "secret=1"))
            .await
            .unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.fields["x-a"], "b");
        assert_eq!(answer.body.expose(), b"hello");
        let request = &server.requests()[0];
        let port = server.address.port();
        assert!(
            request.starts_with("POST /token?a=b HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(
            request.contains(&format!("host: localhost:{port}\r\n")),
            "{request}"
        );
        assert!(request.ends_with("\r\n\r\nsecret=1"), "{request}");
    });
}

#[test]
fn a_server_that_is_not_verified_gets_nothing() {
    run(async {
        let (ca, other) = (Ca::new(), Ca::new());
        let cases = [
            // Both authorities have the same name.
            ("BadSignature", other.issue("localhost", |_| {})),
            ("not valid for name", ca.issue("login.example", |_| {})),
            (
                "expired",
                ca.issue("localhost", |params| {
                    params.not_after = date_time_ymd(2020, 1, 1)
                }),
            ),
            (
                "not valid yet",
                ca.issue("localhost", |params| {
                    params.not_before = date_time_ymd(2090, 1, 1)
                }),
            ),
        ];
        for (expected, chain) in cases {
            let server = Server::start(Some(server(chain)), OK).await;
            let url = server.url("https", "localhost");
            let error = client(&ca.roots).ask(question(&url, "")).await.unwrap_err();
            assert!(matches!(error, ExchangeError::Tls(_)), "{error}");
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(server.requests(), [""; 0]);
        }
    });
}

#[test]
fn a_client_certificate_is_presented() {
    run(async {
        let ca = Ca::new();
        let verifier = WebPkiClientVerifier::builder(Arc::clone(&ca.roots))
            .build()
            .unwrap();
        let (chain, key) = ca.issue("localhost", |_| {});
        let tls = ServerConfig::builder().with_client_cert_verifier(verifier);
        let server = Server::start(Some(tls.with_single_cert(chain, key).unwrap()), OK).await;
        let url = server.url("https", "localhost");
        let mut client = client(&ca.roots);
        client.ask(question(&url, "")).await.unwrap_err();
        assert_eq!(server.requests(), [""; 0]);
        let (chain, key) = ca.issue("orders", |_| {});
        let tls = ClientConfig::builder().with_root_certificates(Arc::clone(&ca.roots));
        client.tls = Arc::new(tls.with_client_auth_cert(chain, key).unwrap());
        assert_eq!(
            client.ask(question(&url, "")).await.unwrap().status,
            StatusCode::OK
        );
    });
}

#[test]
fn plain_text_goes_to_this_machine_alone() {
    run(async {
        let server = Server::start(None, OK).await;
        let client = client(&Ca::new().roots);
        let url = server.url("http", "127.0.0.1");
        let answer = client.ask(question(&url, "")).await.unwrap();
        assert_eq!(answer.body.expose(), b"hello");
        // What `localhost` means is for the hosts file to say.
        let hosts = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(hosts.path(), "192.0.2.1 localhost\n").unwrap();
        let names = Arc::new(NameService::new(
            Files::Own {
                resolv_conf: "/dev/null".into(),
                hosts: hosts.path().into(),
            },
            None,
        ));
        let client = HttpsClient { names, ..client };
        let url = server.url("http", "localhost");
        let error = client.ask(question(&url, "")).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Elsewhere(_)), "{error}");
    });
}

#[test]
fn a_redirect_is_an_answer() {
    run(async {
        let elsewhere = Server::start(None, OK).await;
        let location = elsewhere.url("http", "127.0.0.1");
        let redirect =
            format!("HTTP/1.1 307 X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        let server = Server::start(None, redirect).await;
        let url = server.url("http", "127.0.0.1");
        let answer = client(&Ca::new().roots)
            .ask(question(&url, "secret=1"))
            .await
            .unwrap();
        assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(elsewhere.requests(), [""; 0]);
    });
}

#[test]
fn an_answer_has_limits() {
    run(async {
        let mut client = client(&Ca::new().roots);
        client.limits.answer_bytes = 5;
        client.limits.whole = Duration::from_millis(300);
        let long = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello!";
        let endless = "HTTP/1.1 200 OK\r\n\r\nhello, hello";
        for answer in [long, endless] {
            let server = Server::start(None, answer).await;
            let url = server.url("http", "127.0.0.1");
            let error = client.ask(question(&url, "")).await.unwrap_err();
            assert!(matches!(error, ExchangeError::Length), "{error}");
        }
        let cut = Server::start(None, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell").await;
        let url = cut.url("http", "127.0.0.1");
        let error = client.ask(question(&url, "")).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Http(_)), "{error}");
        // It takes connections and says nothing, in plain text or for TLS.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        for scheme in ["http", "https"] {
            let url = ServerUrl::parse(&format!("{scheme}://127.0.0.1:{port}/")).unwrap();
            let error = client.ask(question(&url, "")).await.unwrap_err();
            assert!(matches!(error, ExchangeError::Timeout), "{error}");
        }
    });
}

#[test]
fn one_that_is_not_there_is_told() {
    run(async {
        let client = client(&Ca::new().roots);
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = gone.local_addr().unwrap().port();
        drop(gone);
        let url = ServerUrl::parse(&format!("https://127.0.0.1:{port}/")).unwrap();
        let error = client.ask(question(&url, "")).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Connect(..)), "{error}");
        let url = ServerUrl::parse("https://login.invalid/").unwrap();
        let error = client.ask(question(&url, "")).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Name(_)), "{error}");
    });
}
