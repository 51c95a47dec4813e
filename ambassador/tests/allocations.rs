//! What a request over kept-alive connections allocates: one shard, real
//! sockets on loopback, and an allocator that counts.

#![expect(unsafe_code, reason = "a global allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use ambassador::testing::addr::EndpointAddr;
use ambassador::testing::clock::Instant;
use ambassador::testing::message::trace;
use ambassador::testing::policy::balance::{Key, LoadBalancing};
use ambassador::testing::policy::outlier;
use ambassador::testing::proxy::generation::Generation;
use ambassador::testing::proxy::listener::Entry;
use ambassador::testing::proxy::memory::{Limit, Memory};
use ambassador::testing::proxy::room::Room;
use ambassador::testing::ring::Backend;
use ambassador::testing::route::settings::{
    Claim, Endpoints, Policies, Protocol, Settings, Upstream,
};
use ambassador::testing::shard::accept::ListenSocket;
use ambassador::testing::shard::{self, Plan, Shard};
use ambassador::testing::telemetry::Registry;
use ambassador::testing::upstream::balancer::{Balancer, Grade, PickInput, Probe};
use ambassador::testing::upstream::dial::{Namespace, OwnAddresses};
use ambassador::testing::upstream::endpoints::Published;

/// What a GET with a small response may allocate, once the shard has served a
/// few.
const PER_REQUEST_MAX: u64 = 0;

/// Connections with a request each at the same time.
const CLIENTS: usize = 8;

/// Requests of each before the count begins, and while it runs.
const WARM_UP: usize = 100;
const COUNTED: usize = 200;

/// How much of the way to an allocation is told.
const SITE_DEPTH: usize = 3;

/// A sweep of the pools, each second, is nobody's request.
const BESIDE_REQUESTS_MAX: u64 = 20;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The system's allocator, which counts on threads that asked for it.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static SITES: Mutex<Vec<String>> = Mutex::new(Vec::new());

thread_local! {
    static WATCH: Cell<Watch> = const { Cell::new(Watch::Off) };
}

/// What becomes of the allocations of a thread.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    Off,
    Count,
    /// Counted, and where each came from is written down.
    Trace,
}

impl Counting {
    fn note(&self) {
        // No thread-local is left when a thread ends.
        let watch = WATCH.try_with(Cell::get).unwrap_or(Watch::Off);
        if watch == Watch::Off {
            return;
        }
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        if watch == Watch::Trace {
            WATCH.set(Watch::Off);
            let site = site(&Backtrace::force_capture().to_string());
            SITES.lock().expect("nothing panics with it").push(site);
            WATCH.set(Watch::Trace);
        }
    }
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.note();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.note();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The lines of this project in a backtrace, the innermost first.
fn site(backtrace: &str) -> String {
    let places = backtrace
        .lines()
        .filter_map(|line| line.trim().strip_prefix("at ./src/"));
    places.take(SITE_DEPTH).collect::<Vec<_>>().join(" < ")
}

/// An upstream that answers every request on every connection alike.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || answer(stream.expect("a connection")));
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    let mut filled = 0;
    while let Ok(count @ 1..) = stream.read(&mut bytes[filled..]) {
        filled += count;
        if bytes[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            stream.write_all(RESPONSE).expect("the proxy takes it");
        }
    }
}

const REQUEST: &[u8] = b"GET /v1/things?page=2 HTTP/1.1\r\n\
    Host: web.test\r\n\
    User-Agent: a-client/1.0\r\n\
    Accept: application/json\r\n\
    traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
    tracestate: a=1,b=2\r\n\
    baggage: c=3\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 16\r\n\r\n\
    {\"things\": true}";
const BODY: &[u8] = b"{\"things\": true}";

/// One shard between an explicit listener and the upstream `web`, with all that a
/// request can have on its way.
fn start(backend: Backend, upstream: SocketAddr) -> (Shard, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let registry = Registry::default();
    let settings = Settings {
        upstreams: vec![Arc::new(Upstream {
            tls: None,
            name: "web".into(),
            claims: vec![Claim::Name {
                host: "web.test".into(),
                port: None,
            }],
            endpoints: Endpoints::Static(vec![upstream.into()]),
            protocol: Protocol::Auto,
            auth: None,
            placeholders: Vec::new(),
            on_failure: None,
            policies: Policies {
                tracing: Some(trace::Settings {
                    sample: 0.5,
                    formats: trace::Formats {
                        tracecontext: true,
                        b3: true,
                        baggage: true,
                    },
                }),
                ..Policies::default()
            },
        })],
        ..Settings::default()
    };
    let plan = Plan {
        shards: 1,
        tokens: shard::Tokens::Guarded,
        shard: 0,
        cpu: None,
        backend,
        spin: ambassador::testing::ring::Spin::Never,
        generation: Arc::new(Generation::new(settings, &registry, None)),
        listen_sockets: vec![ListenSocket {
            tls: None,
            room: Room::new(None),
            socket: listener.into(),
            index: registry.listener("egress"),
            entry: Entry::Http,
            original: None,
            namespace: Namespace::default(),
        }],
        own: OwnAddresses::default(),
        memory: Arc::new(Memory::new(1, Limit::None)),
        namespaces: Vec::new(),
        log: None,
        heartbeat: None,
        callers: shard::Callers::Remain,
    };
    let mut shards = shard::start(vec![plan]).expect("the backend works here");
    (shards.pop().expect("one was planned"), address)
}

/// Has every client send a request, and then each read its response.
fn ask(clients: &mut [TcpStream]) {
    for client in &mut *clients {
        client.write_all(REQUEST).expect("the proxy takes it");
    }
    for client in clients {
        let mut bytes = [0; 4096];
        let mut filled = 0;
        while !bytes[..filled].ends_with(BODY) {
            let count = client.read(&mut bytes[filled..]).expect("an answer");
            assert!(count > 0, "{:?}", String::from_utf8_lossy(&bytes[..filled]));
            filled += count;
        }
        assert!(bytes.starts_with(b"HTTP/1.1 200 "));
    }
}

/// Changes what becomes of the shard's allocations.
fn watch(shard: &Shard, watch: Watch) {
    let (done, is_done) = mpsc::channel();
    shard.tell(move |_| {
        done.send(()).expect("it is waited for");
        WATCH.set(watch);
    });
    is_done.recv().expect("the shard lives");
}

/// Where the shard allocates for one request.
fn sites(shard: &Shard, clients: &mut [TcpStream]) -> String {
    watch(shard, Watch::Trace);
    ask(&mut clients[..1]);
    watch(shard, Watch::Off);
    let sites = std::mem::take(&mut *SITES.lock().expect("nothing panics with it"));
    sites.join("\n")
}

/// The count is of all threads that ask for it.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn a_kept_alive_request_allocates_nothing() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let upstream = upstream();
    for backend in [Backend::Ring, Backend::Epoll] {
        let (shard, address) = start(backend, upstream);
        let connect = |_| TcpStream::connect(address).unwrap();
        let mut clients: Vec<TcpStream> = (0..CLIENTS).map(connect).collect();
        (0..WARM_UP).for_each(|_| ask(&mut clients));
        watch(&shard, Watch::Count);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        (0..COUNTED).for_each(|_| ask(&mut clients));
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        let requests = (CLIENTS * COUNTED) as u64;
        assert!(
            allocations <= PER_REQUEST_MAX * requests + BESIDE_REQUESTS_MAX,
            "{backend}: {allocations} allocations for {requests} requests; of one:\n{}",
            sites(&shard, &mut clients)
        );
        shard.drain(Instant::now() + Duration::from_secs(1), Duration::ZERO);
        drop(clients);
        shard.join().unwrap();
    }
}

#[test]
fn a_choice_among_endpoints_allocates_nothing() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let address = |port| EndpointAddr(SocketAddr::from(([127, 0, 0, 1], port)));
    let published = Published::default();
    published.publish((1..=10).map(|port| address(port).into()), None);
    let outlier = outlier::Settings::default();
    let now = Instant::now();
    let tried = [address(3)];
    for load_balancing in [
        LoadBalancing::RoundRobin,
        LoadBalancing::LeastRequest,
        LoadBalancing::PeakEwma,
        LoadBalancing::Random,
        LoadBalancing::RingHash(Key::SourceIp),
    ] {
        let mut balancer = Balancer::default();
        let mut request = |random: u64| {
            for tried in [&[], &tried[..]] {
                let input = PickInput {
                    load_balancing: &load_balancing,
                    key: Some(random),
                    tried,
                    probe: Probe::Allowed,
                    random: &|| random,
                    now,
                };
                let mut picked = balancer.pick(&published, &input).expect("there are ten");
                let grade = Grade::of_status(if random == 7 { 503 } else { 200 }, None);
                picked.ended(grade, &outlier, now);
            }
        };
        (0..10).for_each(&mut request);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        WATCH.set(Watch::Count);
        (0..1_000).for_each(request);
        WATCH.set(Watch::Off);
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!(allocations, 0, "{load_balancing:?}");
    }
}
