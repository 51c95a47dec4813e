//! gRPC calls under the policies: what is made again, what counts, how calls end that
//! the proxy ends. What the server has received decides.

use std::net::SocketAddr;
use std::time::Duration;

use ambassador_tests::proxy::one_upstream;
use ambassador_tests::{
    Answer, Backend, Call, Column, GrpcCall, GrpcServer, Leaving, Protocol, Proxy, Received,
    Script, Server, eventually, on_both_backends, ports,
};
use h2::Reason;
use serde_json::Value;

on_both_backends!(
    a_reply_made_here_is_the_end_of_a_call,
    grpc_web_is_http,
    grpc_web_passes_between_the_versions,
    a_route_can_be_for_one_method,
    a_refused_call_is_made_again,
    a_call_that_is_refused_while_it_is_sent_is_made_again,
    a_call_that_may_have_been_processed_is_made_once,
    other_codes_are_causes_where_they_are_named,
    a_server_puts_another_try_off_or_refuses_it,
    a_large_message_is_not_kept,
    codes_open_the_circuit,
    codes_that_are_no_failures_open_nothing,
    a_probe_is_judged_by_its_end,
    one_endpoint_of_two_is_not_there,
    one_endpoint_of_two_is_unavailable,
    hedging_leaves_calls_alone,
    what_is_left_of_the_deadline_is_told,
    a_deadline_of_the_caller_opens_nothing,
    a_deadline_of_ours_opens_the_circuit,
    a_deadline_ends_a_call_amid_its_messages,
    a_call_that_is_cut_ends_with_a_code,
    a_call_given_up_ends_at_the_server_at_once,
    elsewhere_a_call_is_counted_by_its_code_and_judged_by_its_status,
    a_proxy_in_between_is_judged_by_its_status,
    four_mebibytes_pass,
    many_messages_pass,
    a_million_messages_leave_nothing_behind,
);

const PATH: &str = "/shop.Cart/Add";
const SOON: Duration = Duration::from_secs(10);
const OK: u8 = 0;
const DEADLINE_EXCEEDED: u8 = 4;
const NOT_FOUND: u8 = 5;
const RESOURCE_EXHAUSTED: u8 = 8;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;

/// No wait between tries, and budget enough.
const QUICK: &str = "base: 1ms, budget: { ratio: 100%, min_per_second: 1000 }";

/// A proxy in front of a server, which speaks gRPC to it.
struct World {
    server: GrpcServer,
    proxy: Proxy,
    listen: SocketAddr,
}

impl World {
    #[track_caller]
    fn start(backend: Backend, server: GrpcServer, more: &str) -> World {
        let more = format!("protocol: grpc\n{more}");
        let (proxy, listen) = Proxy::in_front_of_with(backend, server.address(), &more);
        World {
            server,
            proxy,
            listen,
        }
    }

    fn call(&self) -> GrpcCall {
        GrpcCall::new(self.listen, PATH)
    }

    /// Makes a call; the code with which it ends.
    #[track_caller]
    fn code(&self) -> u8 {
        let outcome = self.call().make();
        let code = outcome.code();
        code.unwrap_or_else(|| panic!("it has no code: {outcome:?}"))
    }

    fn calls(&self) -> usize {
        self.server.calls().len()
    }

    /// Calls that ended with this code are counted.
    #[track_caller]
    fn expect_counted(&self, code: &str, count: usize) {
        let labels = [("upstream", "web"), ("grpc_status", code)];
        let count = count as f64;
        self.proxy
            .expect_metric("ambassador_requests_total", &labels, count);
    }

    #[track_caller]
    fn expect_retries(&self, cause: &str, count: usize) {
        let labels = [("upstream", "web"), ("cause", cause)];
        let count = count as f64;
        self.proxy
            .expect_metric("ambassador_retries_total", &labels, count);
    }

    /// 0: closed, 1: half-open, 2: open.
    #[track_caller]
    fn breaker(&self) -> f64 {
        let labels = [("upstream", "web")];
        self.proxy.metric("ambassador_breaker_state", &labels)
    }
}

fn refuses(code: u8) -> Script {
    Script::Refuse(code, Vec::new())
}

/// Does these in turn, then answers.
fn in_turn(scripts: Vec<Script>) -> GrpcServer {
    GrpcServer::start(move |number, _| {
        let script = scripts.get(number).cloned();
        script.unwrap_or(Script::Answer(10, OK))
    })
}

/// The breaker's default failures come to this.
const FAILURES: usize = 5;

fn a_reply_made_here_is_the_end_of_a_call(backend: Backend) {
    let gone = Server::ok().address();
    let more = "protocol: grpc\nretry: { attempts: 1 }";
    let (proxy, listen) = Proxy::in_front_of_with(backend, gone, more);
    let outcome = GrpcCall::new(listen, PATH)
        .content_type("application/grpc+proto")
        .make();
    assert_eq!((outcome.status, outcome.code()), (200, Some(UNAVAILABLE)));
    assert!(outcome.is_trailers_only, "{outcome:?}");
    assert_eq!(outcome.reason(), "connect-failed");
    assert_eq!(outcome.end("content-type"), Some("application/grpc"));
    let message = outcome.end("grpc-message").expect("it has words");
    assert_eq!(message, "cannot connect to the upstream");
    let labels = [
        ("upstream", "web"),
        ("status", "200"),
        ("reason", "connect-failed"),
        ("grpc_status", "unavailable"),
    ];
    proxy.expect_metric("ambassador_requests_total", &labels, 1.0);

    // Whoever asks for something else gets what HTTP has.
    let plain = GrpcCall::new(listen, PATH).content_type("application/json");
    let plain = plain.make();
    assert_eq!((plain.status, plain.code()), (502, None));
    assert_eq!(plain.reason(), "connect-failed");
}

fn grpc_web_is_http(backend: Backend) {
    let world = World::start(backend, GrpcServer::always(refuses(UNAVAILABLE)), "");
    for kind in ["application/grpc-web", "application/grpc-web-text+proto"] {
        let outcome = world.call().content_type(kind).make();
        assert_eq!((outcome.status, outcome.code()), (200, Some(UNAVAILABLE)));
    }
    assert_eq!(world.calls(), 2);
    let labels = [("upstream", "web"), ("status", "200")];
    let proxy = &world.proxy;
    proxy.expect_metric("ambassador_requests_total", &labels, 2.0);
    world.expect_counted("unavailable", 0);
}

fn grpc_web_passes_between_the_versions(backend: Backend) {
    // A message, then its trailers, which are content to all but the caller.
    let asked = b"\0\0\0\0\x03abc";
    let answered = b"\0\0\0\0\x02de\x80\0\0\0\x0fgrpc-status:14\r\n";
    let kind = "application/grpc-web+proto";
    for (client, upstream) in [
        (Protocol::Http1, Protocol::Http1),
        (Protocol::Http1, Protocol::Http2),
        (Protocol::Http2, Protocol::Http1),
        (Protocol::Http2, Protocol::Http2),
    ] {
        let column = Column {
            client,
            upstream,
            backend,
        };
        let server = column.server(move |_| Answer::ok(answered).field("content-type", kind));
        let (proxy, listen) = column.in_front_of(&server, "");
        let call = Call::post(PATH, asked).field("content-type", kind);
        let response = column.connect(listen).call(&call.field("x-grpc-web", "1"));
        assert_eq!(response.status, 200);
        assert_eq!(response.body, answered);
        assert_eq!(response.field("content-type"), Some(kind));
        let received = server.last_request();
        assert_eq!(received.body, asked);
        assert_eq!(received.field("x-grpc-web"), Some("1"));
        // The proxy does not read the code, and does not judge by it.
        let labels = [("upstream", "web"), ("grpc_status", "unavailable")];
        assert_eq!(proxy.metric("ambassador_requests_total", &labels), 0.0);
        let labels = [("upstream", "web"), ("status", "200")];
        proxy.expect_metric("ambassador_requests_total", &labels, 1.0);
        assert_eq!(server.requests().len(), 1);
    }
}

fn a_route_can_be_for_one_method(backend: Backend) {
    let scripts = |_: usize, path: &str| match path {
        "/shop.Cart/Wait" => Script::Hang,
        _ => refuses(UNAVAILABLE),
    };
    let (server, other) = (
        GrpcServer::start(scripts),
        GrpcServer::always(Script::Answer(10, OK)),
    );
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let more =
        format!("protocol: grpc\nretry: {{ {QUICK} }}\ncircuit_breaker: {{ failures: off }}");
    let config = one_upstream(listen, server.address(), &more);
    let config = format!(
        "{config}\x20 other: {{ protocol: grpc, endpoints: [\"{}\"] }}\n\
         routes:\n\
         - {{ match: {{ path_prefix: /shop.Cart/Add }}, upstream: web, retry: {{ attempts: 1 }} }}\n\
         - {{ match: {{ path_prefix: /shop.Cart/Wait }}, upstream: web, timeouts: {{ request: 200ms }} }}\n\
         - {{ match: {{ path_prefix: /shop.Stock }}, upstream: other }}\n",
        other.address(),
    );
    let _proxy = Proxy::start(backend, &config);
    let code = |path: &str| GrpcCall::new(listen, path).make().code();
    let calls = |path: &str| {
        let calls = server.calls();
        calls.iter().filter(|call| call.path == path).count()
    };
    // One try by its route, three by its upstream.
    for (path, tries) in [
        ("/shop.Cart/Add", 1),
        ("/shop.Cart/AddAll", 3),
        ("/shop.Cart/Remove", 3),
    ] {
        assert_eq!(
            (code(path), calls(path)),
            (Some(UNAVAILABLE), tries),
            "{path}"
        );
    }
    assert_eq!(code("/shop.Cart/Wait"), Some(DEADLINE_EXCEEDED));
    // All methods of a service.
    for path in ["/shop.Stock/Get", "/shop.Stock/Put"] {
        assert_eq!(code(path), Some(OK));
    }
    let paths: Vec<_> = other.calls().into_iter().map(|call| call.path).collect();
    assert_eq!(paths, ["/shop.Stock/Get", "/shop.Stock/Put"]);
}

fn a_refused_call_is_made_again(backend: Backend) {
    let twice = vec![refuses(UNAVAILABLE), Script::HeadThenRefuse(UNAVAILABLE)];
    let world = World::start(backend, in_turn(twice), &format!("retry: {{ {QUICK} }}"));
    assert_eq!(world.code(), OK);
    let calls = world.server.calls();
    assert_eq!(calls.len(), 3);
    // Each with its message, and all under one id.
    assert!(calls.iter().all(|call| call.bytes == Some(15)), "{calls:?}");
    let ids: Vec<_> = calls
        .iter()
        .map(|call| &call.fields["x-request-id"])
        .collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]));
    world.expect_retries("unavailable", 2);
    world.expect_counted("ok", 1);

    // The last answer is passed on as it is.
    let server = GrpcServer::always(Script::Refuse(UNAVAILABLE, vec![("x-own", "1")]));
    let world = World::start(
        backend,
        server,
        &format!("retry: {{ attempts: 2, {QUICK} }}"),
    );
    let outcome = world.call().make();
    assert_eq!(outcome.code(), Some(UNAVAILABLE));
    assert_eq!((outcome.end("x-own"), outcome.reason()), (Some("1"), ""));
    assert_eq!(world.calls(), 2);
    world.expect_counted("unavailable", 1);
}

fn a_call_that_is_refused_while_it_is_sent_is_made_again(backend: Backend) {
    const MESSAGES: usize = 300;
    let more = format!("retry: {{ {QUICK} }}");
    let unread = vec![Script::RefuseUnread(UNAVAILABLE); 2];
    let world = World::start(backend, in_turn(unread), &more);
    let outcome = world.call().message(100).messages(MESSAGES).make();
    assert_eq!(outcome.code(), Some(OK), "{outcome:?}");
    let calls = world.server.calls();
    let bytes: Vec<_> = calls.iter().map(|call| call.bytes).collect();
    assert_eq!(bytes, [None, None, Some(MESSAGES * 105)]);
}

fn a_call_that_may_have_been_processed_is_made_once(backend: Backend) {
    let more = format!("retry: {{ {QUICK} }}\ncircuit_breaker: {{ failures: off }}");
    for (script, code) in [
        (Script::Answer(10, UNAVAILABLE), UNAVAILABLE),
        (Script::Reset(Reason::INTERNAL_ERROR), UNAVAILABLE),
        (refuses(INTERNAL), INTERNAL),
    ] {
        let world = World::start(backend, GrpcServer::always(script.clone()), &more);
        assert_eq!(world.code(), code, "{script:?}");
        assert_eq!(world.calls(), 1, "{script:?}");
    }
    // A server that says that it has not is asked again.
    let world = World::start(
        backend,
        in_turn(vec![Script::Reset(Reason::REFUSED_STREAM)]),
        &more,
    );
    assert_eq!((world.code(), world.calls()), (OK, 2));
    // Where a call may arrive twice, it does.
    let twice = format!("retry: {{ methods: [POST], {QUICK} }}");
    let reset = in_turn(vec![Script::Reset(Reason::INTERNAL_ERROR)]);
    let world = World::start(backend, reset, &twice);
    assert_eq!((world.code(), world.calls()), (OK, 2));
    // And where it may not, not even a refused one.
    let never = format!("retry: {{ methods: [GET], {QUICK} }}");
    let world = World::start(backend, in_turn(vec![refuses(UNAVAILABLE)]), &never);
    assert_eq!((world.code(), world.calls()), (UNAVAILABLE, 1));
}

fn other_codes_are_causes_where_they_are_named(backend: Backend) {
    let more =
        format!("retry: {{ on: [reset, {{ grpc: [resource-exhausted, not-found] }}], {QUICK} }}");
    let scripts = vec![refuses(RESOURCE_EXHAUSTED), refuses(NOT_FOUND)];
    let world = World::start(backend, in_turn(scripts), &more);
    assert_eq!((world.code(), world.calls()), (OK, 3));
    world.expect_retries("resource-exhausted", 1);
    world.expect_retries("grpc-status", 1);
    // The list is whole: what it leaves out is none.
    let world = World::start(backend, in_turn(vec![refuses(UNAVAILABLE)]), &more);
    assert_eq!((world.code(), world.calls()), (UNAVAILABLE, 1));
}

fn a_server_puts_another_try_off_or_refuses_it(backend: Backend) {
    let pushed_back = |ms| Script::Refuse(UNAVAILABLE, vec![("grpc-retry-pushback-ms", ms)]);
    let more = format!("retry: {{ {QUICK} }}");
    let world = World::start(backend, in_turn(vec![pushed_back("400")]), &more);
    assert_eq!(world.code(), OK);
    let calls = world.server.calls();
    let waited = calls[1].at - calls[0].at;
    assert!(waited >= Duration::from_millis(390), "{waited:?}");
    for never in ["-1", "soon"] {
        let world = World::start(backend, in_turn(vec![pushed_back(never)]), &more);
        assert_eq!((world.code(), world.calls()), (UNAVAILABLE, 1), "{never}");
    }
}

fn a_large_message_is_not_kept(backend: Backend) {
    let more = format!("retry: {{ body_limit: 1KiB, {QUICK} }}");
    for (length, calls) in [(1_000, 2), (1_100, 1)] {
        let world = World::start(backend, in_turn(vec![refuses(UNAVAILABLE)]), &more);
        world.call().message(length).make();
        assert_eq!(world.calls(), calls, "{length}");
    }
}

fn codes_open_the_circuit(backend: Backend) {
    for script in [
        refuses(UNAVAILABLE),
        Script::HeadThenRefuse(UNAVAILABLE),
        Script::Answer(10, INTERNAL),
        Script::ResetAmid(Reason::INTERNAL_ERROR),
    ] {
        let server = GrpcServer::always(script.clone());
        let world = World::start(backend, server, "retry: { attempts: 1 }");
        for _ in 0..FAILURES {
            let outcome = world.call().make();
            assert_ne!(outcome.reason(), "circuit-open", "{script:?}");
        }
        eventually("it opens", SOON, || world.breaker() == 2.0);
        let outcome = world.call().make();
        assert_eq!(outcome.code(), Some(UNAVAILABLE));
        assert_eq!(outcome.reason(), "circuit-open", "{script:?}");
        assert!(outcome.is_trailers_only);
        assert_eq!(world.calls(), FAILURES, "{script:?}");
    }
}

fn codes_that_are_no_failures_open_nothing(backend: Backend) {
    let more = "retry: { attempts: 1 }";
    for script in [
        refuses(NOT_FOUND),
        refuses(RESOURCE_EXHAUSTED),
        Script::Answer(10, NOT_FOUND),
    ] {
        let world = World::start(backend, GrpcServer::always(script.clone()), more);
        for _ in 0..FAILURES + 2 {
            assert_eq!(world.call().make().reason(), "", "{script:?}");
        }
        assert_eq!(world.calls(), FAILURES + 2, "{script:?}");
    }
    // The file may say otherwise.
    let named = format!(
        "{more}\ncircuit_breaker: {{ failure_statuses: [500-599, {{ grpc: [not-found] }}] }}"
    );
    let world = World::start(backend, GrpcServer::always(refuses(NOT_FOUND)), &named);
    for _ in 0..FAILURES {
        assert_eq!(world.code(), NOT_FOUND);
    }
    assert_eq!(world.call().make().reason(), "circuit-open");
}

fn a_probe_is_judged_by_its_end(backend: Backend) {
    // The first probe is refused as well.
    let scripts = vec![refuses(UNAVAILABLE); FAILURES + 1];
    let more = "retry: { attempts: 1 }\ncircuit_breaker: { sleep: 300ms }";
    let world = World::start(backend, in_turn(scripts), more);
    for _ in 0..FAILURES {
        assert_eq!(world.code(), UNAVAILABLE);
    }
    eventually("a probe is let through", SOON, || {
        world.call().make().reason().is_empty()
    });
    assert_eq!(world.calls(), FAILURES + 1);
    assert_eq!(world.call().make().reason(), "circuit-open");
    eventually("it is well again", SOON, || world.code() == OK);
    eventually("it closes", SOON, || world.breaker() == 0.0);
}

fn two_endpoints(backend: Backend, endpoints: [SocketAddr; 2], more: &str) -> (Proxy, SocketAddr) {
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let [one, other] = endpoints;
    let config = one_upstream(listen, one, &format!("protocol: grpc\n{more}"));
    let both = format!("[\"{one}\", \"{other}\"]");
    let config = config.replace(&format!("[\"{one}\"]"), &both);
    (Proxy::start(backend, &config), listen)
}

fn one_endpoint_of_two_is_not_there(backend: Backend) {
    let (server, gone) = (
        GrpcServer::always(Script::Answer(10, OK)),
        Server::ok().address(),
    );
    let (proxy, listen) = two_endpoints(backend, [gone, server.address()], "");
    for _ in 0..20 {
        assert_eq!(GrpcCall::new(listen, PATH).make().code(), Some(OK));
    }
    let labels = [("upstream", "web"), ("grpc_status", "ok")];
    proxy.expect_metric("ambassador_requests_total", &labels, 20.0);
    assert_eq!(server.calls().len(), 20);
}

fn one_endpoint_of_two_is_unavailable(backend: Backend) {
    for hedge in ["", "\nhedge: { after: 20ms, budget: 100% }"] {
        let well = GrpcServer::always(Script::Answer(10, OK));
        let other = GrpcServer::always(refuses(UNAVAILABLE));
        let endpoints = [other.address(), well.address()];
        let more = format!("retry: {{ {QUICK} }}{hedge}");
        let (proxy, listen) = two_endpoints(backend, endpoints, &more);
        for _ in 0..30 {
            assert_eq!(GrpcCall::new(listen, PATH).make().code(), Some(OK));
        }
        assert_eq!(well.calls().len(), 30);
        // It is ejected before long, and the circuit knows nothing of it.
        assert!(other.calls().len() <= FAILURES, "{}", other.calls().len());
        let breaker = proxy.metric("ambassador_breaker_state", &[("upstream", "web")]);
        assert_eq!(breaker, 0.0);
    }
}

fn hedging_leaves_calls_alone(backend: Backend) {
    let more = format!(
        "retry: {{ {QUICK} }}\nhedge: {{ after: 20ms, budget: 100% }}\n\
         timeouts: {{ request: 400ms }}"
    );
    let world = World::start(backend, GrpcServer::always(Script::Hang), &more);
    let outcome = world.call().make();
    assert_eq!(outcome.code(), Some(DEADLINE_EXCEEDED));
    assert_eq!((outcome.reason(), world.calls()), ("request-timeout", 1));
}

fn what_is_left_of_the_deadline_is_told(backend: Backend) {
    let more = "fault: { delay: { for: 300ms, share: 100% } }";
    let world = World::start(backend, GrpcServer::always(Script::Answer(10, OK)), more);
    world.call().field("grpc-timeout", "10S").make();
    let told = &world.server.calls()[0].fields["grpc-timeout"];
    let told = told.to_str().expect("it is text");
    let (digits, unit) = told.split_at(told.len() - 1);
    let count: u64 = digits
        .parse()
        .unwrap_or_else(|_| panic!("digits alone: {told}"));
    let left = match unit {
        "n" => Duration::from_nanos(count),
        "u" => Duration::from_micros(count),
        "m" => Duration::from_millis(count),
        other => panic!("{other} in {told}"),
    };
    assert!(left <= Duration::from_millis(9_700), "{told}");
    assert!(left > Duration::from_secs(5), "{told}");

    // Of ours, where that is shorter.
    // That begins with the whole request, which is there after the delay.
    let more = "timeouts: { request: 5s }\n\
                fault: { delay: { for: 300ms, share: 100% } }";
    let world = World::start(backend, GrpcServer::always(Script::Answer(10, OK)), more);
    world.call().field("grpc-timeout", "1H").make();
    let told = world.server.calls()[0].fields["grpc-timeout"].clone();
    let told = told.to_str().expect("it is text").to_owned();
    assert!(told.ends_with('u') && told.len() <= 8, "{told}");
}

fn a_deadline_of_the_caller_opens_nothing(backend: Backend) {
    // Whoever notices first, the server or the proxy.
    for script in [Script::Hang, refuses(DEADLINE_EXCEEDED)] {
        let server = GrpcServer::always(script.clone());
        let world = World::start(backend, server, "retry: { attempts: 1 }");
        for _ in 0..FAILURES + 2 {
            let outcome = world.call().field("grpc-timeout", "100m").make();
            assert_eq!(outcome.code(), Some(DEADLINE_EXCEEDED), "{script:?}");
            assert_ne!(outcome.reason(), "circuit-open");
        }
        assert_eq!(world.calls(), FAILURES + 2, "{script:?}");
        world.expect_counted("deadline-exceeded", FAILURES + 2);
        eventually("the server has heard", SOON, || {
            let calls = world.server.calls();
            let hangs = matches!(script, Script::Hang);
            calls.iter().all(|call| call.given_up.is_some() == hangs)
        });
    }
}

fn a_deadline_of_ours_opens_the_circuit(backend: Backend) {
    let more = "retry: { attempts: 1 }\ntimeouts: { request: 200ms }";
    for script in [Script::Hang, refuses(DEADLINE_EXCEEDED)] {
        let server = GrpcServer::always(script.clone());
        let world = World::start(backend, server, more);
        for _ in 0..FAILURES {
            let outcome = world.call().field("grpc-timeout", "1M").make();
            assert_eq!(outcome.code(), Some(DEADLINE_EXCEEDED), "{script:?}");
        }
        let outcome = world.call().make();
        assert_eq!(outcome.reason(), "circuit-open", "{script:?}");
    }
}

fn a_deadline_ends_a_call_amid_its_messages(backend: Backend) {
    let world = World::start(backend, GrpcServer::always(Script::Silence), "");
    let outcome = world.call().field("grpc-timeout", "300m").make();
    assert_eq!(outcome.bytes, 15, "the message has come: {outcome:?}");
    assert_eq!(outcome.code(), Some(DEADLINE_EXCEEDED));
    assert_eq!(outcome.reason(), "request-timeout");
    eventually("the server has heard", SOON, || {
        world.server.calls()[0].given_up.is_some()
    });
    assert_eq!(world.breaker(), 0.0);
}

fn a_call_that_is_cut_ends_with_a_code(backend: Backend) {
    let server = GrpcServer::always(Script::ResetAmid(Reason::INTERNAL_ERROR));
    let world = World::start(backend, server, "");
    let outcome = world.call().make();
    assert_eq!((outcome.status, outcome.bytes), (200, 15), "{outcome:?}");
    assert_eq!(outcome.code(), Some(UNAVAILABLE));
    assert_eq!(outcome.reason(), "upstream-reset");
    assert_eq!(world.calls(), 1);
    world.expect_counted("unavailable", 1);
}

fn a_call_given_up_ends_at_the_server_at_once(backend: Backend) {
    const CALLS: usize = 10;
    for (script, leaving) in [
        (Script::Silence, Leaving::Stream),
        (Script::Silence, Leaving::Connection),
        (Script::Hang, Leaving::Stream),
        (Script::Hang, Leaving::Connection),
    ] {
        let world = World::start(backend, GrpcServer::always(script), "");
        let took = (0..CALLS).map(|number| {
            let received = world.server.watch();
            let has_come = move || received.calls().get(number).is_some_and(Received::is_whole);
            let call = world.call().give_up(has_come, leaving);
            let given_up = call.make().given_up.expect("nothing ends it before");
            eventually("the server has heard", SOON, || {
                world.server.calls()[number].given_up.is_some()
            });
            let heard = world.server.calls()[number].given_up;
            heard.map(|heard| heard.saturating_duration_since(given_up))
        });
        // Where others leave the machine alone.
        let quickest = took.flatten().min().expect("there are some");
        assert!(quickest < Duration::from_millis(20), "{quickest:?}");
        let labels = [("upstream", "web"), ("reason", "client-gone")];
        let (proxy, calls) = (&world.proxy, CALLS as f64);
        proxy.expect_metric("ambassador_requests_total", &labels, calls);
    }
}

fn elsewhere_a_call_is_counted_by_its_code_and_judged_by_its_status(backend: Backend) {
    let server = GrpcServer::always(refuses(UNAVAILABLE));
    let log = "\ntelemetry: { access_log: { path: stdout } }\n";
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = one_upstream(listen, server.address(), "protocol: http2") + log;
    let proxy = Proxy::start(backend, &config);
    for _ in 0..FAILURES + 1 {
        let outcome = GrpcCall::new(listen, PATH).make();
        assert_eq!((outcome.code(), outcome.reason()), (Some(UNAVAILABLE), ""));
    }
    assert_eq!(server.calls().len(), FAILURES + 1);
    let labels = [("upstream", "web"), ("grpc_status", "unavailable")];
    proxy.expect_metric("ambassador_requests_total", &labels, (FAILURES + 1) as f64);
    let log = proxy.log();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines.into_iter().find(|line| line["path"] == PATH);
    let line = line.expect("it is logged");
    assert_eq!(
        (&line["grpc_status"], &line["status"]),
        (&"unavailable".into(), &200.into())
    );
}

fn a_proxy_in_between_is_judged_by_its_status(backend: Backend) {
    for (status, code, opens) in [
        (503, "unavailable", true),
        (502, "unavailable", true),
        (401, "unauthenticated", false),
        (404, "unimplemented", false),
    ] {
        let server = GrpcServer::always(Script::Status(status));
        let world = World::start(backend, server, &format!("retry: {{ {QUICK} }}"));
        for _ in 0..FAILURES {
            let outcome = world.call().make();
            assert_eq!((outcome.status, outcome.code()), (status, None));
        }
        // It may have been processed.
        assert_eq!(world.calls(), FAILURES, "{status}");
        world.expect_counted(code, FAILURES);
        assert_eq!(world.breaker() == 2.0, opens, "{status}");
    }
}

fn four_mebibytes_pass(backend: Backend) {
    let world = World::start(backend, GrpcServer::always(Script::Echo), "");
    let outcome = world.call().message(4 << 20).make();
    assert_eq!((outcome.code(), outcome.bytes), (Some(OK), (4 << 20) + 5));
    world.expect_counted("ok", 1);
}

fn many_messages_pass(backend: Backend) {
    const COUNT: usize = 50_000;
    let world = World::start(backend, GrpcServer::always(Script::Echo), "");
    let outcome = world.call().message(1).messages(COUNT).make();
    assert_eq!((outcome.code(), outcome.bytes), (Some(OK), COUNT * 6));
}

fn a_million_messages_leave_nothing_behind(backend: Backend) {
    const MANY: usize = 1_000_000;
    /// What the windows of a connection let wait, both ways.
    const WINDOWS: u64 = 2 * (4 << 20);
    let world = World::start(backend, GrpcServer::always(Script::Echo), "");
    let echo = |count| {
        let call = world.call().message(20).messages(count).together(50);
        let outcome = call.make();
        assert_eq!((outcome.code(), outcome.bytes), (Some(OK), count * 25));
        world.proxy.peak_bytes()
    };
    // Buffers come with the first ones.
    let (some, all) = (echo(MANY / 10), echo(MANY));
    assert!(all - some < WINDOWS, "{some} bytes, then {all}");
}
