//! What is agreed upon with TLS, with both ends on one shard.

use std::cell::RefCell;
use std::os::unix::net::UnixStream;

use rcgen::{CertificateParams, CertifiedKey, KeyPair};
use rustls::SupportedProtocolVersion;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::version::{TLS12, TLS13};

use super::*;
use crate::combinators::both;
use crate::ring::{Backend, Options, Spin};
use crate::route::settings::{Endpoints, Policies, Protocol, Upstream};
use crate::route::tls::{Alpn, Ca, Tls};
use crate::telemetry::Resumption;
use crate::tls::{Client, Files, Offer};

const NAME: &str = "a.example";

fn on_a_shard(test: impl Future<Output = ()> + 'static) {
    let options = Options {
        backend: Backend::Epoll,
        shard: 0,
        spin: Spin::Never,
    };
    ring::run(options, test).unwrap();
}

/// A certificate that vouches for itself.
fn certified() -> CertifiedKey<KeyPair> {
    let signing_key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    CertifiedKey {
        cert: params.self_signed(&signing_key).unwrap(),
        signing_key,
    }
}

fn client(certified: &CertifiedKey<KeyPair>, protocol: Protocol, alpn: Alpn) -> Client {
    let upstream = Upstream {
        name: "web".into(),
        claims: Vec::new(),
        endpoints: Endpoints::Original,
        protocol,
        tls: Some(Arc::new(Tls {
            ca: Ca::File("ca.pem".into()),
            alpn,
            ..Tls::default()
        })),
        auth: None,
        placeholders: Vec::new(),
        on_failure: None,
        policies: Policies::default(),
    };
    let files = Files {
        ca: Some(certified.cert.pem().into_bytes()),
        ..Files::default()
    };
    Client::new(&upstream, &files).unwrap().unwrap()
}

fn server(
    certified: &CertifiedKey<KeyPair>,
    version: &'static SupportedProtocolVersion,
    protocols: &[&str],
) -> Arc<ServerConfig> {
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().into())
        .collect();
    Arc::new(config)
}

type Agreed = Result<Transport, HandshakeError>;

/// The ends of a new connection: the client's and the server's.
async fn connect(client: &Client, offer: Offer, server: &Arc<ServerConfig>) -> (Agreed, Agreed) {
    let (near, far) = UnixStream::pair().unwrap();
    let [near, far] = [near, far].map(|end| Transport::from_connected(end.into()).unwrap());
    let config = Arc::clone(client.in_force().unwrap().config(offer));
    let name = ServerName::try_from(NAME).unwrap();
    let (connected, accepted) = (RefCell::new(None), RefCell::new(None));
    let connecting = async {
        let end = near.encrypt(config, name).await;
        *connected.borrow_mut() = Some(end);
        Ok::<(), ()>(())
    };
    let accepting = async {
        let end = far.accept_tls(Arc::clone(server)).await;
        *accepted.borrow_mut() = Some(end);
        Ok(())
    };
    both(connecting, accepting).await.unwrap();
    (
        connected.into_inner().unwrap(),
        accepted.into_inner().unwrap(),
    )
}

#[test]
fn the_server_chooses_from_what_is_offered() {
    const BOTH: &[&str] = &["h2", "http/1.1"];
    const NEITHER: &[&str] = &[];
    const FAILED: Option<bool> = None;
    on_a_shard(async {
        let certified = certified();
        let auto = client(&certified, Protocol::Auto, Alpn::Auto);
        let off = client(&certified, Protocol::Http2, Alpn::Off);
        let opaque = client(&certified, Protocol::Tcp, Alpn::Auto);
        for (client, offer, protocols, is_http2) in [
            (&auto, Offer::Http1, BOTH, Some(false)),
            (&auto, Offer::Http1, NEITHER, Some(false)),
            (&auto, Offer::Http1, &["h2"], FAILED),
            (&auto, Offer::Http2, BOTH, Some(true)),
            (&auto, Offer::Http2, NEITHER, FAILED),
            (&auto, Offer::Http2, &["http/1.1"], FAILED),
            (&auto, Offer::Either, BOTH, Some(true)),
            (&auto, Offer::Either, &["http/1.1", "h2"], Some(false)),
            (&auto, Offer::Either, &["http/1.1"], Some(false)),
            (&auto, Offer::Either, NEITHER, Some(false)),
            (&auto, Offer::Either, &["h3"], FAILED),
            // Nothing is offered, and nothing needed.
            (&off, Offer::Http2, BOTH, Some(false)),
            (&opaque, Offer::Http1, &["h3"], Some(false)),
        ] {
            for version in [&TLS12, &TLS13] {
                let server = server(&certified, version, protocols);
                let (near, far) = connect(client, offer, &server).await;
                let case = format!("{offer:?} {protocols:?} {version:?}");
                match is_http2 {
                    Some(is_http2) => {
                        assert_eq!(near.expect(&case).is_http2(), is_http2, "{case}");
                        assert_eq!(far.expect(&case).is_http2(), is_http2, "{case}");
                    }
                    None => {
                        let outcome = near.expect_err(&case).outcome;
                        assert_eq!(outcome, TlsOutcome::NoProtocol, "{case}");
                    }
                }
            }
        }
    });
}

#[test]
fn sessions_are_resumed_whatever_was_chosen_before() {
    on_a_shard(async {
        let certified = certified();
        for version in [&TLS12, &TLS13] {
            let client = client(&certified, Protocol::Auto, Alpn::Auto);
            let server = server(&certified, version, &["h2", "http/1.1"]);
            for (offer, is_http2, resumption) in [
                (Offer::Http2, true, Resumption::Full),
                (Offer::Http1, false, Resumption::Resumed),
                (Offer::Either, true, Resumption::Resumed),
                (Offer::Http1, false, Resumption::Resumed),
            ] {
                let (near, far) = connect(&client, offer, &server).await;
                let (near, far) = (near.unwrap(), far.unwrap());
                let case = format!("{offer:?} {version:?}");
                assert_eq!(near.tls().unwrap().resumption, resumption, "{case}");
                assert_eq!(near.is_http2(), is_http2, "{case}");
                // Tickets are in front of it.
                far.send(Chunk::from(b"x".to_vec()).into()).await.unwrap();
                let said = near.recv().await.unwrap().unwrap();
                assert_eq!(*said, *b"x", "{case}");
            }
        }
    });
}
