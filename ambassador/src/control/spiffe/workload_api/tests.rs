use std::future::Future;

use hyper::header::HeaderMap;
use rustls::pki_types::UnixTime;
use tokio::net::UnixListener;

use super::super::message::X509Svid;
use super::super::test_agent::{TestAgent, TestCall, response};
use super::*;
use crate::credential::spiffe_id::SpiffeId;
use crate::tls::test_authority::TestAuthority;

const ORDERS: &str = "spiffe://td/orders";

/// Long enough for a test that fails.
const LONG: Duration = Duration::from_secs(20);

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { timeout(LONG, test).await.expect("it hangs") });
}

struct Client {
    published: watch::Receiver<Option<Arc<X509Context>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Client {
    fn of(agent: &TestAgent) -> Self {
        Self::with(agent.endpoint(), Patience::default())
    }

    fn with(endpoint: Endpoint, patience: Patience) -> Self {
        let (publish, published) = watch::channel(None);
        let mut api = WorkloadApi::new(endpoint, publish);
        api.patience = patience;
        let task = tokio::spawn(api.keep());
        Self { published, task }
    }

    /// What is published next.
    async fn next(&mut self) -> Option<Arc<X509Context>> {
        self.published.changed().await.unwrap();
        self.published.borrow_and_update().clone()
    }

    /// The serial number of what stands, where nothing was published since.
    fn same(&self) -> u64 {
        assert!(!self.published.has_changed().unwrap());
        serial(self.published.borrow().as_ref().unwrap())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn serial(identity: &X509Context) -> u64 {
    let leaf = webpki::EndEntityCert::try_from(&identity.certified_key.cert[0]).unwrap();
    leaf.serial()
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn first(authority: &TestAuthority, number: u64) -> X509SvidResponse {
    response(authority, ORDERS, &authority.svid("/orders", number))
}

#[test]
fn what_the_agent_sends_is_published_one_after_the_other() {
    run(async {
        let (td, other) = (TestAuthority::new("td"), TestAuthority::new("other"));
        let mut agent = TestAgent::new();
        let mut client = Client::of(&agent);
        let mut call = agent.call().await;
        assert_eq!(call.head.method, "POST");
        assert_eq!(call.head.uri.path(), "/SpiffeWorkloadAPI/FetchX509SVID");
        for (name, value) in [
            ("workload.spiffe.io", "true"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            assert_eq!(call.head.headers[name], value);
        }
        // An empty message in a frame, and no more.
        assert_eq!(call.request.data().await.unwrap().unwrap(), [0; 5][..]);
        assert!(call.request.data().await.is_none());

        call.send(&first(&td, 1));
        let identity = client.next().await.unwrap();
        assert_eq!((identity.id.as_str(), serial(&identity)), (ORDERS, 1));
        assert!(identity.trust.revocations().is_empty());
        let domain = |name: &str| {
            format!("spiffe://{name}")
                .parse::<SpiffeId>()
                .unwrap()
                .trust_domain()
        };
        assert!(identity.trust.bundle(&domain("other")).is_none());

        let mut second = first(&td, 2);
        let bundle = other.certificate().to_vec().into();
        second
            .federated_bundles
            .insert("spiffe://other".to_owned(), bundle);
        second.crl.push(td.revoke(1).to_vec().into());
        call.send(&second);
        let identity = client.next().await.unwrap();
        assert_eq!(serial(&identity), 2);
        assert_eq!(identity.trust.revocations().len(), 1);
        for name in ["td", "other"] {
            assert_eq!(identity.trust.bundle(&domain(name)).unwrap().len(), 1);
        }
        // Each message says everything: what it does not name is gone.
        call.send(&first(&td, 3));
        let identity = client.next().await.unwrap();
        assert!(identity.trust.bundle(&domain("other")).is_none());
        assert!(identity.trust.revocations().is_empty());
    });
}

#[test]
fn a_call_that_ends_is_made_again_and_the_same_is_not_news() {
    run(async {
        let td = TestAuthority::new("td");
        let mut agent = TestAgent::new();
        let mut client = Client::of(&agent);
        let message = first(&td, 1);
        let ends: [fn(TestCall); 4] = [
            |call| call.end(0, ""),
            |call| call.end(14, "restarting"),
            |call| call.reset(),
            drop,
        ];
        for (number, end) in ends.into_iter().enumerate() {
            let mut call = agent.call().await;
            call.send(&message);
            // Later ones it has read when it has seen that the call ended.
            if number == 0 {
                assert_eq!(serial(&client.next().await.unwrap()), 1);
            }
            end(call);
        }
        let mut call = agent.call().await;
        assert_eq!(client.same(), 1);
        call.send(&first(&td, 2));
        assert_eq!(serial(&client.next().await.unwrap()), 2);
    });
}

#[test]
fn a_message_that_does_not_hold_up_changes_nothing() {
    let (td, other) = (TestAuthority::new("td"), TestAuthority::new("other"));
    let good = || first(&td, 9);
    let with = |change: &dyn Fn(&mut X509Svid)| {
        let mut message = good();
        change(&mut message.svids[0]);
        message
    };
    let key = td.svid("/orders", 1).key.secret_pkcs8_der().to_vec();
    let mut no_svid = good();
    no_svid.svids.clear();
    let mut bad_list = good();
    bad_list.crl.push(b"0".to_vec().into());
    let mut bad_name = good();
    bad_name
        .federated_bundles
        .insert("other".to_owned(), Vec::new().into());
    let mut workload_name = good();
    workload_name
        .federated_bundles
        .insert("spiffe://other/a".to_owned(), Vec::new().into());
    let mut many = good();
    many.crl = vec![Vec::new().into(); 2_001];
    let chain = td.certificate().to_vec();
    let expired = td.svid_for("/orders", 9, Duration::ZERO);
    let expired = response(&td, ORDERS, &expired);
    let cases = [
        (no_svid, "it has no SVID"),
        (bad_list, "revocation list 1 is bad"),
        (bad_name, "the id \"other\" does not begin with spiffe://"),
        (workload_name, "the id \"spiffe://other/a\""),
        (many, "more than 2000 parts"),
        (
            with(&|svid| svid.spiffe_id.push('x')),
            "has the certificate of spiffe://td/orders",
        ),
        (
            with(&|svid| svid.spiffe_id.clear()),
            "does not begin with spiffe://",
        ),
        (
            with(&|svid| svid.x509_svid.clear()),
            "there is no certificate",
        ),
        (
            with(&|svid| svid.x509_svid = chain.clone().into()),
            "that of an authority",
        ),
        (
            with(&|svid| svid.x509_svid = b"0".to_vec().into()),
            "is no certificate",
        ),
        (
            with(&|svid| svid.x509_svid = chain.repeat(201).into()),
            "more than 200 certificates",
        ),
        (
            with(&|svid| svid.x509_svid_key = key.clone().into()),
            "the key does not fit",
        ),
        (
            with(&|svid| svid.x509_svid_key.clear()),
            "the key does not fit",
        ),
        (
            with(&|svid| svid.bundle.clear()),
            "there is no bundle of the trust domain td",
        ),
        (
            response(&other, "spiffe://other/a", &td.svid("/orders", 9)),
            "no bundle of the trust domain td",
        ),
    ];
    let now = UnixTime::now().as_secs();
    for (message, words) in &cases {
        let encoded = prost::Message::encode_to_vec(message);
        let read = X509SvidResponse::read(encoded.into());
        let error = read
            .and_then(|read| read.identity(now))
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error}");
    }
    let error = expired.identity(now + 1).unwrap_err().to_string();
    assert!(error.contains("was valid until"), "{error}");
    for bytes in [
        &b"\x0a"[..],
        b"\x0a\x05ab",
        b"\xff\xff",
        b"\x08\x01",
        b"\x0a\x01\xff",
    ] {
        let error = X509SvidResponse::read(bytes.to_vec().into()).unwrap_err();
        assert!(matches!(error, MessageError::Protobuf), "{error}");
    }

    run(async {
        let mut agent = TestAgent::new();
        let mut client = Client::of(&agent);
        let mut call = agent.call().await;
        call.send(&first(&td, 1));
        assert_eq!(serial(&client.next().await.unwrap()), 1);
        for (message, _) in &cases[..3] {
            call.send(message);
            // The call is given up and made again.
            call = agent.call().await;
            assert_eq!(client.same(), 1);
        }
        call.send(&good());
        assert_eq!(serial(&client.next().await.unwrap()), 9);
    });
}

#[test]
fn a_message_that_has_expired_gives_way_to_the_next() {
    run(async {
        let td = TestAuthority::new("td");
        let mut agent = TestAgent::new();
        let mut client = Client::of(&agent);
        let mut call = agent.call().await;
        call.send(&first(&td, 1));
        assert_eq!(serial(&client.next().await.unwrap()), 1);
        // As after a time in which nobody has read.
        let mut params = TestAuthority::params(2, Duration::ZERO);
        params.not_after = rcgen::date_time_ymd(2024, 1, 1);
        params.not_before = rcgen::date_time_ymd(2023, 1, 1);
        let id = ORDERS.try_into().unwrap();
        params.subject_alt_names = vec![rcgen::SanType::URI(id)];
        call.send(&response(&td, ORDERS, &td.issue(&params)));
        call.send(&first(&td, 3));
        assert_eq!(serial(&client.next().await.unwrap()), 3);
    });
}

#[test]
fn an_answer_that_is_none_is_followed_by_another_call() {
    run(async {
        let td = TestAuthority::new("td");
        let mut agent = TestAgent::new();
        let mut client = Client::of(&agent);
        let ends: [fn(TestCall); 7] = [
            |mut call| call.end_with(500, HeaderMap::new()),
            |mut call| call.end_with(200, HeaderMap::new()),
            |mut call| {
                let mut fields = HeaderMap::new();
                fields.insert("grpc-status", "x".parse().unwrap());
                call.end_with(200, fields);
            },
            |mut call| {
                call.send_bytes(&[0, 0, 0, 0, 9, 1]);
                call.cut();
            },
            // Compressed; longer than is taken; a frame cut by the connection.
            |mut call| call.send_bytes(&[1, 0, 0, 0, 0]),
            |mut call| call.send_bytes(&[0, 0xff, 0, 0, 0]),
            |mut call| call.send_bytes(&[0, 0]),
        ];
        for end in ends {
            end(agent.call().await);
        }
        let mut call = agent.call().await;
        assert!(client.published.borrow().is_none());
        call.send(&first(&td, 1));
        assert!(client.next().await.is_some());
    });
}

#[test]
fn permission_denied_takes_the_identity_away() {
    run(async {
        let td = TestAuthority::new("td");
        let mut agent = TestAgent::new();
        let mut client = Client::of(&agent);
        let mut call = agent.call().await;
        let message = first(&td, 1);
        call.send(&message);
        assert!(client.next().await.is_some());
        call.end(7, "no identity issued");
        assert!(client.next().await.is_none());
        // And the same may come back.
        let mut call = agent.call().await;
        call.send(&message);
        assert_eq!(serial(&client.next().await.unwrap()), 1);
    });
}

#[test]
fn an_identity_that_nobody_renews_is_withdrawn_at_its_end() {
    run(async {
        let td = TestAuthority::new("td");
        let mut agent = TestAgent::new();
        let mut client = Client::of(&agent);
        let svid = td.svid_for("/orders", 1, Duration::from_secs(1));
        let mut call = agent.call().await;
        call.send(&response(&td, ORDERS, &svid));
        let until = client.next().await.unwrap().not_after;
        assert!(client.next().await.is_none());
        assert!(UnixTime::now().as_secs() > until);
    });
}

#[test]
fn an_agent_that_is_silent_or_stops_is_called_again() {
    run(async {
        let td = TestAuthority::new("td");
        let mut agent = TestAgent::new();
        let patience = Patience {
            first_within: Duration::from_millis(200),
            piece_within: Duration::from_millis(200),
            silence_min: Duration::from_millis(200),
        };
        let mut client = Client::with(agent.endpoint(), patience);
        // No answer at all; a message that stops.
        let _first = agent.call().await;
        let mut second = agent.call().await;
        second.send_bytes(&[0, 0, 0, 0, 9, 1]);
        // A certificate that ends soon.
        let mut third = agent.call().await;
        let svid = td.svid_for("/orders", 1, Duration::from_secs(1));
        third.send(&response(&td, ORDERS, &svid));
        assert!(client.next().await.is_some());
        let _fourth = agent.call().await;
    });
}

#[test]
fn what_speaks_no_http2_is_left_and_tried_again() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let _client = Client::with(Endpoint::Unix(path), Patience::default());
        for _ in 0..2 {
            let (stream, _) = listener.accept().await.unwrap();
            stream.writable().await.unwrap();
            stream
                .try_write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .unwrap();
        }
        listener.accept().await.unwrap();
    });
}

#[test]
fn only_what_the_specification_calls_hopeless_waits_long() {
    let status = |code| {
        let words = String::new();
        CallError::Grpc(GrpcError::Status {
            code: Code(code),
            words,
        })
    };
    let hopeless: Vec<u32> = (1..=16)
        .filter(|code| status(*code).is_hopeless())
        .collect();
    assert_eq!(hopeless, [3, 12]);
    assert!(!CallError::Ended.is_hopeless());
}
