//! How much an upstream gets at once, and in a second.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use ambassador_tests::{Answer, Call, Caller, Column, Proxy, eventually, matrix, ports};

matrix!(
    requests_in_flight_have_a_limit,
    a_rate_is_kept_by_refusals,
    a_rate_is_kept_by_waiting,
    a_route_has_its_own_rate,
    an_adaptive_limit_finds_what_the_upstream_can_do,
    streams_do_not_use_up_an_adaptive_limit,
);

fn requests_in_flight_have_a_limit(column: Column) {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    let server = column.server(move |_| {
        // Until the test lets go, or is gone.
        let _ = held.lock().expect("no panic").recv();
        Answer::ok("ok")
    });
    let more = "pool: { max_requests: 2 }";
    let (_proxy, listen) = Proxy::in_front_of_with(column, server.address(), more);
    let mut waiting: Vec<Caller> = (0..2).map(|_| column.connect(listen)).collect();
    for client in &mut waiting {
        client.send(&Call::get("/"));
    }
    eventually("both are in flight", Duration::from_secs(10), || {
        server.requests().len() == 2
    });
    let answer = column.connect(listen).get("/");
    assert_eq!((answer.status, answer.reason()), (503, "overloaded"));
    drop(release);
    for client in &mut waiting {
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(column.connect(listen).get("/").status, 200);
}

fn a_rate_is_kept_by_refusals(column: Column) {
    let server = column.ok();
    let more = "rate_limit: { requests_per_second: 1, burst: 3 }";
    let (_proxy, listen) = Proxy::in_front_of_with(column, server.address(), more);
    // Over connections of every shard.
    let started = Instant::now();
    let answers: Vec<_> = (0..20).map(|_| column.connect(listen).get("/")).collect();
    let passed = answers.iter().filter(|answer| answer.status == 200).count();
    let due = 3 + started.elapsed().as_secs() as usize;
    assert!((3..=due + 1).contains(&passed), "{passed} of {due}");
    let refused = answers.iter().find(|answer| answer.status != 200);
    let refused = refused.expect("not all pass");
    assert_eq!((refused.status, refused.reason()), (429, "rate-limited"));
    assert_eq!(refused.field("retry-after"), Some("1"));
    assert_eq!(server.requests().len(), passed);
}

fn a_rate_is_kept_by_waiting(column: Column) {
    let server = column.ok();
    let more = "rate_limit: { requests_per_second: 20, burst: 1, on_limit: wait }";
    let (_proxy, listen) = Proxy::in_front_of_with(column, server.address(), more);
    let started = Instant::now();
    let mut client = column.connect(listen);
    for _ in 0..11 {
        assert_eq!(client.get("/").status, 200);
    }
    // Ten intervals of 50 ms.
    assert!(started.elapsed() >= Duration::from_millis(490));
}

fn a_route_has_its_own_rate(column: Column) {
    let server = column.ok();
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = format!(
        "listeners:\n  - {{ name: egress, bind: \"{listen}\" }}\n\
         upstreams:\n  web:\n    hosts: [web.test]\n    endpoints: [\"{}\"]\n\
         routes:\n- match: {{ host: web.test, path_prefix: /rare }}\n  upstream: web\n  \
         rate_limit: {{ requests_per_second: 0.01, burst: 1 }}\n",
        server.address()
    );
    let _proxy = Proxy::start(column, &config);
    let mut client = column.connect(listen);
    let mut get = |path: &str| client.call(&Call::get(path));
    assert_eq!(get("/rare").status, 200);
    assert_eq!(get("/rare/or/below").reason(), "rate-limited");
    for _ in 0..20 {
        assert_eq!(get("/often").status, 200);
    }
}

/// Requests that the upstream of the adaptive limit works on at once.
const WORKERS: usize = 8;
/// Those who call it.
const CALLERS: usize = 64;
/// How long it works on one: much longer than a busy machine delays anybody, which
/// would look like a slow upstream.
const WORK: Duration = Duration::from_millis(80);

/// An upstream that works on so many requests at once and has the others wait.
struct Busy {
    free: Mutex<usize>,
    freed: Condvar,
    inside: AtomicUsize,
    /// The most that were inside since the callers' second half.
    peak: AtomicUsize,
}

impl Busy {
    fn work(&self) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(inside, Ordering::SeqCst);
        let free = self.free.lock().expect("no panic");
        let mut free = self
            .freed
            .wait_while(free, |free| *free == 0)
            .expect("no panic");
        *free -= 1;
        drop(free);
        std::thread::sleep(WORK);
        *self.free.lock().expect("no panic") += 1;
        self.freed.notify_one();
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What the callers saw and did in their second half.
struct Load {
    /// Of a request that was answered by the upstream, the middle one.
    latency: Duration,
    overloaded: usize,
    /// Requests in the upstream at most.
    peak: usize,
    /// The limit at the end, where there is one.
    limit: Option<u64>,
}

/// Callers that each have a request under way all the time, until the upstream
/// has answered a few hundred, and as many again.
fn load(column: Column, more: &str) -> Load {
    const HALF: usize = 400;
    let busy = Arc::new(Busy {
        free: Mutex::new(WORKERS),
        freed: Condvar::new(),
        inside: AtomicUsize::new(0),
        peak: AtomicUsize::new(0),
    });
    let works = Arc::clone(&busy);
    let server = column.server(move |_| {
        works.work();
        Answer::ok("ok")
    });
    let (proxy, listen) = Proxy::in_front_of_with(column, server.address(), more);
    let (answered, overloaded) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let latencies = Mutex::new(Vec::new());
    let call = || {
        let mut client = column.connect(listen);
        while answered.load(Ordering::SeqCst) < 2 * HALF {
            let began = Instant::now();
            let answer = client.get("/");
            let counts = answered.load(Ordering::SeqCst) >= HALF;
            if answer.status == 200 {
                if answered.fetch_add(1, Ordering::SeqCst) == HALF {
                    busy.peak.store(0, Ordering::SeqCst);
                }
                if counts {
                    latencies.lock().expect("no panic").push(began.elapsed());
                }
            } else {
                assert_eq!((answer.status, answer.reason()), (503, "overloaded"));
                overloaded.fetch_add(usize::from(counts), Ordering::SeqCst);
                // As callers do; at once would be a load of its own.
                std::thread::sleep(WORK / 4);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(call);
        }
    });
    let shown = proxy.admin_get("/upstreams");
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("it is JSON");
    let limit = shown["upstreams"][0]["concurrency_limit"].as_u64();
    let metric = proxy.metric("ambassador_concurrency_limit", &[("upstream", "web")]);
    assert_eq!(metric, limit.unwrap_or_default() as f64);
    let mut latencies = latencies.into_inner().expect("no panic");
    latencies.sort_unstable();
    Load {
        latency: latencies[latencies.len() / 2],
        overloaded: overloaded.into_inner(),
        peak: busy.peak.load(Ordering::SeqCst),
        limit,
    }
}

fn an_adaptive_limit_finds_what_the_upstream_can_do(column: Column) {
    let without = load(column, "");
    assert_eq!((without.limit, without.overloaded), (None, 0));
    assert!(without.peak > CALLERS * 3 / 4, "{}", without.peak);

    let with = load(column, "concurrency: { adaptive: on }");
    let limit = with.limit.expect("it is shown") as usize;
    // It moves about what the upstream can do, more so where others use the machine.
    for seen in [limit, with.peak] {
        assert!((WORKERS / 2..=WORKERS * 4).contains(&seen), "{seen}");
    }
    assert!(with.peak >= WORKERS, "{}", with.peak);
    assert!(with.overloaded > 0);
    let (fast, slow) = (with.latency, without.latency);
    assert!(fast * 2 < slow, "{fast:?}, and {slow:?} without a limit");
}

fn streams_do_not_use_up_an_adaptive_limit(column: Column) {
    let server = column.script(|exchange| {
        if exchange.request()?.target != "/stream" {
            return exchange.send(&Answer::ok("ok"));
        }
        let stream = Answer::status(200).field("Content-Type", "text/event-stream");
        exchange.send(&stream.in_pieces())?;
        // Until the client goes.
        exchange.until_left()
    });
    let more = "concurrency: { adaptive: on, min: 2, max: 2 }";
    let (_proxy, listen) = Proxy::in_front_of_with(column, server.address(), more);
    let streams: Vec<Caller> = (0..8)
        .map(|_| {
            let mut client = column.connect(listen);
            client.send(&Call::get("/stream"));
            assert_eq!(client.head().status, 200);
            client
        })
        .collect();
    assert_eq!(column.connect(listen).get("/").status, 200);
    drop(streams);
}
