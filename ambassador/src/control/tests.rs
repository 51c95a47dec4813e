use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use super::client::{Client, ClientError, Output};
use super::*;
use crate::addr::EndpointAddr;
use crate::policy::breaker;
use crate::policy::budget::Spent;
use crate::telemetry::{BackendLabel, Call, CallQuery, Cells, Direction, Snapshot, UpstreamIndex};
use crate::upstream::dial::Namespace;
use crate::upstream::endpoints::EndpointView;

fn circuit(namespace: u16, state: breaker::State) -> (Namespace, CircuitInfo) {
    let circuit = CircuitInfo {
        state,
        failures: namespace.into(),
        refuses_for: None,
    };
    (Namespace(namespace), circuit)
}

/// A running control side over a program of two shards that never was.
struct Fixture {
    control: Control,
    events: Receiver<Event>,
    readiness: Arc<Readiness>,
    captured: Arc<AtomicBool>,
    second_shard_answers: Arc<AtomicBool>,
    /// How the breaker of `shop` was set.
    forced: Arc<Mutex<Option<Force>>>,
    directory: PathBuf,
}

enum Over {
    Tcp,
    /// Where other machines reach it.
    Outside,
    Unix,
}

/// A shard of which the counters are known, where it answers.
struct Shard {
    shop: UpstreamIndex,
    answers: Arc<AtomicBool>,
}

impl AskShard for Shard {
    fn counters(&self, reply: oneshot::Sender<Snapshot>) {
        if self.answers.load(Ordering::Relaxed) {
            let cells = Cells::default();
            cells.bytes(self.shop, Direction::Sent, 21);
            reply.send(cells.snapshot()).unwrap();
        }
    }

    fn failures(&self, _: CallQuery, reply: oneshot::Sender<Vec<Call>>) {
        reply.send(Vec::new()).unwrap();
    }
}

impl Fixture {
    fn new(name: &str, over: Over) -> Self {
        let name = format!("control-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let token_file = directory.join("token");
        std::fs::write(&token_file, "s3cret\n").unwrap();
        let settings = Settings {
            commands: Arc::default(),
            listen: match over {
                Over::Tcp => BindAddr::Tcp("127.0.0.1:0".parse().unwrap()),
                Over::Outside => BindAddr::Tcp("0.0.0.0:0".parse().unwrap()),
                Over::Unix => BindAddr::Unix(directory.join("admin.sock")),
            },
            metrics_listen: Some(BindAddr::Tcp("127.0.0.1:0".parse().unwrap())),
            token_file: Some(token_file),
            signals: Signals::Leave,
            watch: None,
        };
        let captured = Arc::new(AtomicBool::new(true));
        let canary_sees = Arc::clone(&captured);
        let readiness = Arc::new(Readiness::new(Some(Box::new(move || {
            let captured = canary_sees.load(Ordering::Relaxed);
            captured.then_some(()).ok_or("it went straight".to_owned())
        }))));
        let registry = Arc::new(Registry::default());
        let shop = registry.upstream("shop");
        let second_shard_answers = Arc::new(AtomicBool::new(true));
        let answers = Arc::clone(&second_shard_answers);
        let (sender, events) = sync_channel(4);
        let forced = Arc::<Mutex<Option<Force>>>::default();
        let record = Arc::clone(&forced);
        let state = State {
            identity: spiffe::Publish::default(),
            obstacle: Box::new(|| None),
            registry,
            origin: Box::new(|_, _| None),
            shards: [Arc::new(AtomicBool::new(true)), answers]
                .map(|answers| Box::new(Shard { shop, answers }) as Box<dyn AskShard>)
                .into(),
            readiness: Arc::clone(&readiness),
            extras: Box::new(|| Extras {
                certificates: Vec::new(),
                handshakes: Vec::new(),
                captured_connects: Vec::new(),
                capture_slots: None,
                memory: Vec::new(),
                credential_expiry: Vec::new(),
                unhealthy_endpoints: Vec::new(),
                backend: BackendLabel::Epoll,
            }),
            upstreams: Box::new(|| {
                vec![UpstreamInfo {
                    name: "shop".into(),
                    source: Source::Static,
                    protocol: "auto",
                    policies: Default::default(),
                    credential: None,
                    placeholders: Vec::new(),
                    resilience: ResilienceInfo {
                        circuits: vec![
                            circuit(0, breaker::State::Closed),
                            circuit(2, breaker::State::Open),
                        ],
                        forced: Force::Auto,
                        budget: Spent {
                            requests: 0,
                            extra: 0,
                        },
                        in_flight: 0,
                        concurrency_limit: Some(17),
                    },
                    endpoints: vec![(
                        Namespace::default(),
                        EndpointView {
                            address: EndpointAddr("10.1.2.3:80".parse().unwrap()),
                            weight: 2,
                            zone: None,
                            ejected_for: Some(Duration::from_millis(1_500)),
                            avoided_for: None,
                            is_unhealthy: false,
                            consecutive_failures: 0,
                        },
                    )],
                }]
            }),
            force_breaker: Box::new(move |name, force| {
                let known = name == "shop";
                if known {
                    *record.lock().unwrap() = Some(force);
                }
                known
            }),
            config: Box::new(|| serde_json::json!({ "workers": 2 })),
            resolved: Arc::new(|_, _| {}),
            deadline: Arc::new(Deadline::new(|| None)),
            events: sender,
        };
        Self {
            control: start(settings.clone(), Bound::bind(&settings).unwrap(), state).unwrap(),
            events,
            readiness,
            captured,
            second_shard_answers,
            forced,
            directory,
        }
    }

    fn client(&self) -> Client {
        Client {
            admin: self.control.listen().clone(),
            token_file: None,
        }
    }

    fn get(&self, path: &str) -> Result<String, ClientError> {
        self.client().call(hyper::Method::GET, path)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn refused(result: Result<String, ClientError>) -> (u16, String) {
    match result {
        Err(ClientError::Refused(status, body)) => (status, body),
        other => panic!("not refused: {other:?}"),
    }
}

/// The status line of a raw request.
fn raw(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply.lines().next().unwrap_or("").to_owned()
}

fn tcp(address: &BindAddr) -> TcpStream {
    let BindAddr::Tcp(address) = address else {
        panic!("{address} is not TCP");
    };
    TcpStream::connect(address).unwrap()
}

#[test]
fn ready_only_while_serving_captured_and_turning() {
    let fixture = Fixture::new("ready", Over::Tcp);
    assert_eq!(fixture.get("/livez").unwrap(), "ok\n");
    let (status, why) = refused(fixture.get("/readyz"));
    assert_eq!(status, 503);
    assert!(why.starts_with("starting"), "{why}");

    fixture.readiness.set(Phase::Serving);
    assert_eq!(fixture.get("/readyz").unwrap(), "ok\n");

    fixture.captured.store(false, Ordering::Relaxed);
    let (_, why) = refused(fixture.get("/readyz"));
    assert_eq!(why, "capture does not work: it went straight");
    fixture.captured.store(true, Ordering::Relaxed);

    fixture.second_shard_answers.store(false, Ordering::Relaxed);
    assert_eq!(refused(fixture.get("/readyz")).1, "shard 1 does not answer");
    fixture.second_shard_answers.store(true, Ordering::Relaxed);

    fixture.readiness.set(Phase::Draining);
    assert_eq!(refused(fixture.get("/readyz")), (503, "draining".into()));
    assert_eq!(fixture.get("/livez").unwrap(), "ok\n");
}

#[test]
fn metrics_sum_the_shards_and_keep_a_silent_one() {
    let fixture = Fixture::new("metrics", Over::Tcp);
    let sent = r#"ambassador_bytes_total{upstream="shop",direction="sent"} 42"#;
    let text = fixture.get("/metrics").unwrap();
    assert!(text.contains(sent), "{text}");
    fixture.second_shard_answers.store(false, Ordering::Relaxed);
    let text = fixture.get("/metrics").unwrap();
    assert!(text.contains(sent), "{text}");
    let staleness = text
        .lines()
        .find_map(|line| line.strip_prefix("ambassador_shard_staleness_seconds "));
    assert!(staleness.unwrap().parse::<f64>().unwrap() > 0.0);
}

#[test]
fn upstreams_and_config_are_shown() {
    let fixture = Fixture::new("documents", Over::Tcp);
    let document: serde_json::Value =
        serde_json::from_str(&fixture.client().status(Output::Json).unwrap()).unwrap();
    let shop = &document["upstreams"][0];
    assert_eq!(shop["name"], "shop");
    let endpoint = serde_json::json!({
        "address": "10.1.2.3:80",
        "namespace": 0, "weight": 2,
        "zone": null,
        "ejected": true,
        "ejected_for_seconds": 1.5,
        "avoided_for_seconds": null,
        "unhealthy": false,
        "consecutive_failures": 0,
    });
    assert_eq!(shop["endpoints"][0], endpoint);
    assert_eq!(shop["bytes"]["sent"], 42);
    assert_eq!(shop["concurrency_limit"], 17);
    let worst = &shop["circuit_breaker"];
    assert_eq!(worst["state"], "open");
    assert_eq!(worst["failures"], 2);
    assert_eq!(worst["namespaces"][0]["state"], "closed");
    assert_eq!(worst["namespaces"][1]["namespace"], 2);
    assert_eq!(document["upstreams"].as_array().unwrap().len(), 1);
    let table = fixture.client().status(Output::Table).unwrap();
    assert!(table.contains("\nshop "), "{table}");
    assert!(fixture.get("/config").unwrap().contains("\"workers\": 2"));
    assert_eq!(refused(fixture.get("/nothing")).0, 404);
}

#[test]
fn the_metrics_address_serves_nothing_else() {
    let fixture = Fixture::new("surface", Over::Tcp);
    let client = Client {
        admin: fixture.control.metrics_listen().unwrap().clone(),
        token_file: Some(fixture.directory.join("token")),
    };
    assert!(client.call(hyper::Method::GET, "/metrics").is_ok());
    for path in ["/config", "/upstreams", "/"] {
        let answer = client.call(hyper::Method::GET, path);
        assert_eq!(refused(answer).0, 404, "{path}");
    }
    assert!(client.drain().is_err());
    assert_eq!(fixture.events.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn what_tells_of_traffic_is_not_read_under_a_rebound_name() {
    let fixture = Fixture::new("rebound", Over::Tcp);
    let metrics = fixture.control.metrics_listen().unwrap();
    let status = |address: &BindAddr, path: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
        let status = raw(tcp(address), &request);
        status.split(' ').nth(1).unwrap().to_owned()
    };
    for path in ["/config", "/upstreams", "/metrics"] {
        assert_eq!(status(fixture.control.listen(), path), "403", "{path}");
    }
    // Whoever probes may call us by any name, and so may who scrapes.
    assert_eq!(status(fixture.control.listen(), "/livez"), "200");
    assert_eq!(status(metrics, "/livez"), "200");
    assert_eq!(status(metrics, "/metrics"), "200");
}

#[test]
fn other_machines_read_the_configuration_with_the_token_alone() {
    let fixture = Fixture::new("outside", Over::Outside);
    let with_token = Client {
        token_file: Some(fixture.directory.join("token")),
        ..fixture.client()
    };
    for path in ["/config", "/upstreams"] {
        assert_eq!(refused(fixture.get(path)).0, 401, "{path}");
        assert!(with_token.call(hyper::Method::GET, path).is_ok(), "{path}");
    }
    assert!(with_token.status(Output::Table).unwrap().contains("shop"));
    for path in ["/livez", "/metrics"] {
        assert!(fixture.get(path).is_ok(), "{path}");
    }
}

#[test]
fn draining_over_tcp_takes_the_token_a_post_and_no_foreign_site() {
    let fixture = Fixture::new("drain-tcp", Over::Tcp);
    assert!(matches!(
        fixture.client().drain(),
        Err(ClientError::Refused(401, _))
    ));
    assert_eq!(refused(fixture.get("/drain")).0, 405);
    let foreign = "POST /drain HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\
                   Authorization: Bearer s3cret\r\nConnection: close\r\n\r\n";
    let status = raw(tcp(fixture.control.listen()), foreign);
    assert_eq!(status, "HTTP/1.1 403 Forbidden");
    assert_eq!(fixture.events.try_recv(), Err(TryRecvError::Empty));

    let with_token = Client {
        token_file: Some(fixture.directory.join("token")),
        ..fixture.client()
    };
    with_token.drain().unwrap();
    assert_eq!(fixture.events.try_recv(), Ok(Event::Drain));
}

#[test]
fn a_breaker_is_set_by_who_may_change_something() {
    let fixture = Fixture::new("breaker", Over::Unix);
    let post = |path: &str| fixture.client().call(hyper::Method::POST, path);
    for (word, force) in [
        ("open", Force::Open),
        ("close", Force::Closed),
        ("auto", Force::Auto),
    ] {
        let path = format!("/upstreams/shop/breaker/{word}");
        assert!(post(&path).unwrap().contains(word));
        assert_eq!(fixture.forced.lock().unwrap().take(), Some(force));
        assert_eq!(refused(fixture.get(&path)).0, 405);
    }
    for path in [
        "/upstreams/else/breaker/open",
        "/upstreams/shop/breaker/ajar",
        "/upstreams/shop/breaker",
        "/upstreams/shop/breaker/open/wide",
    ] {
        assert_eq!(refused(post(path)).0, 404, "{path}");
    }
    assert_eq!(*fixture.forced.lock().unwrap(), None);

    let over_tcp = Fixture::new("breaker-tcp", Over::Tcp);
    let path = "/upstreams/shop/breaker/open";
    let answer = over_tcp.client().call(hyper::Method::POST, path);
    assert_eq!(refused(answer).0, 401);
    assert_eq!(*over_tcp.forced.lock().unwrap(), None);
}

#[test]
fn the_unix_socket_is_its_owners_and_goes_with_the_program() {
    let fixture = Fixture::new("drain-unix", Over::Unix);
    let path = fixture.directory.join("admin.sock");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fixture.client().drain().unwrap();
    assert_eq!(fixture.events.try_recv(), Ok(Event::Drain));
    let garbage = raw(UnixStream::connect(&path).unwrap(), "nonsense\r\n\r\n");
    assert_eq!(garbage, "HTTP/1.1 400 Bad Request");

    // A second one does not push the first aside.
    let taken = listen::Bound::bind(&BindAddr::Unix(path.clone()));
    assert_eq!(taken.err().unwrap().kind(), io::ErrorKind::AddrInUse);
    let directory = fixture.directory.clone();
    drop(fixture);
    assert!(!directory.join("admin.sock").exists());
}

#[test]
fn a_taken_address_is_named() {
    let fixture = Fixture::new("taken", Over::Tcp);
    let address = fixture.control.listen().clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let error = listen::Bound::bind(&address).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    let shown = StartError::Listen {
        address: address.clone(),
        source: error,
    };
    assert_eq!(shown.to_string(), format!("cannot listen on {address}"));
}

#[test]
fn nobody_there_is_said_so() {
    let client = Client {
        admin: BindAddr::Unix("/nonexistent/ambassador.sock".into()),
        token_file: None,
    };
    let error = client.status(Output::Table).unwrap_err();
    assert!(matches!(error, ClientError::Connect(..)), "{error}");
}

#[test]
fn signals_become_events() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (sender, events) = sync_channel(4);
    runtime.block_on(async {
        let handlers = signals::Handlers::install().unwrap();
        let never = Deadline::new(|| None);
        let sending = tokio::task::spawn_blocking(move || {
            for (signal, event) in [
                ("HUP", Event::Reload),
                ("TERM", Event::Drain),
                ("INT", Event::Drain),
            ] {
                let pid = std::process::id().to_string();
                let sent = std::process::Command::new("kill")
                    .args(["-s", signal, &pid])
                    .status();
                assert!(sent.unwrap().success());
                assert_eq!(events.recv_timeout(Duration::from_secs(10)), Ok(event));
            }
        });
        tokio::select! {
            () = handlers.run(&sender, &never) => unreachable!("handlers do not end"),
            done = sending => done.unwrap(),
        }
    });
}
