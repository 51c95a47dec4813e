//! Traces: left alone unless asked for, else carried on to each try.

use std::collections::HashSet;
use std::net::SocketAddr;

use ambassador_tests::server::Request;
use ambassador_tests::{Answer, Call, Caller, Column, Proxy, Server, matrix, ports};

matrix!(
    a_trace_is_continued_or_started,
    an_upstream_may_want_another_format,
    a_reload_switches_it_on,
    each_try_is_a_span_of_its_own,
    without_a_word_about_traces_nothing_of_them_changes,
);

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// A proxy with this `telemetry.tracing` before the upstream `web`, of which
/// `more` is a further line.
fn traced(column: Column, server: &Server, tracing: &str, more: &str) -> (Proxy, Caller) {
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = config(listen, server, tracing, more);
    (Proxy::start(column, &config), column.connect(listen))
}

fn config(listen: SocketAddr, server: &Server, tracing: &str, more: &str) -> String {
    let upstream = ambassador_tests::proxy::one_upstream(listen, server.address(), more);
    match tracing {
        "" => upstream,
        tracing => format!("telemetry: {{ tracing: {tracing} }}\n{upstream}"),
    }
}

/// The request that arrives when one with these fields is sent.
fn arrives(client: &mut Caller, server: &Server, fields: &str) -> Request {
    assert_eq!(client.call(&Call::get("/").lines(fields)).status, 200);
    server.last_request()
}

/// The fields of a request that have to do with traces, as they came; names are
/// lower case where the protocol has no other.
fn of_trace(request: &Request) -> String {
    let names = ["trace", "b3", "x-b3-", "baggage"];
    let lines = request.fields.iter().filter(|(name, _)| {
        let name = name.to_ascii_lowercase();
        names.iter().any(|start| name.starts_with(start))
    });
    lines
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect()
}

/// These lines with the names in lower case.
fn any_case(lines: &str) -> String {
    let lines = lines.split_inclusive("\r\n").map(|line| {
        let (name, value) = line.split_once(':').expect("a name and a value");
        format!("{}:{value}", name.to_ascii_lowercase())
    });
    lines.collect()
}

/// Its one `traceparent`, in parts.
fn parent(request: &Request) -> [String; 4] {
    let mut all = request
        .fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("traceparent"));
    let (_, value) = all.next().expect("there is one");
    assert_eq!(all.next(), None, "{}", request.head);
    let parts: Vec<String> = value.split('-').map(str::to_owned).collect();
    let parts: [String; 4] = parts.try_into().expect("four parts");
    assert_eq!(parts.each_ref().map(String::len), [2, 32, 16, 2], "{value}");
    parts
}

fn without_a_word_about_traces_nothing_of_them_changes(column: Column) {
    let server = column.ok();
    let (_proxy, mut client) = traced(column, &server, "", "");
    let valid = format!("TraceParent: 00-{TRACE}-{SPAN}-01\r\n");
    for fields in [
        "",
        &valid,
        &format!("{valid}tracestate: a=1\r\nTracestate: b=2\r\n"),
        &format!("{valid}{valid}"),
        "traceparent: nonsense\r\ntracestate: B=\r\nbaggage: a=1\r\n",
        "tracestate: a=1\r\n",
        "b3: 0\r\nX-B3-TraceId: 1\r\nx-b3-spanid: 2\r\n",
    ] {
        let request = arrives(&mut client, &server, fields);
        assert_eq!(any_case(&of_trace(&request)), any_case(fields));
        assert!(request.field("x-request-id").is_some(), "{}", request.head);
    }
}

fn a_trace_is_continued_or_started(column: Column) {
    let server = column.ok();
    let (_proxy, mut client) = traced(column, &server, "{ sample: 100% }", "");
    let mut ids = HashSet::new();
    for flags in ["00", "01", "02", "03"] {
        let fields = format!(
            "TraceParent: 00-{TRACE}-{SPAN}-{flags}\r\ntracestate: a=1\r\nTraceState: b=2 , c=3\r\n\
             baggage: k=v\r\nb3: {TRACE}-{SPAN}-1\r\n"
        );
        let request = arrives(&mut client, &server, &fields);
        let [version, trace, span, went_on] = parent(&request);
        assert_eq!((&*version, &*trace, &*went_on), ("00", TRACE, flags));
        assert!(span != SPAN && ids.insert(span), "{}", request.head);
        let rest =
            format!("baggage: k=v\r\nb3: {TRACE}-{SPAN}-1\r\ntraceparent: {version}-{trace}-");
        let all = of_trace(&request);
        assert!(all.starts_with(&rest), "{all}");
        assert!(all.ends_with("\r\ntracestate: a=1,b=2,c=3\r\n"), "{all}");
    }
    for fields in [
        "",
        "tracestate: a=1\r\n",
        "traceparent: nonsense\r\ntracestate: a=1\r\n",
        &format!("traceparent: 00-{TRACE}-{SPAN}-01\r\ntraceparent: 00-{TRACE}-{SPAN}-01\r\n"),
        &format!("traceparent: ff-{TRACE}-{SPAN}-01\r\n"),
        &format!("traceparent: 00-{TRACE}-{}-01\r\n", SPAN.to_uppercase()),
    ] {
        let request = arrives(&mut client, &server, fields);
        let [_, trace, _, flags] = parent(&request);
        // Its id is random, and it is sampled.
        assert_eq!(flags, "03", "{fields}");
        assert!(trace != TRACE && ids.insert(trace), "{fields}");
        assert_eq!(request.field("tracestate"), None, "{fields}");
    }
    let (_proxy, mut client) = traced(column, &server, "{ sample: 0% }", "");
    assert_eq!(parent(&arrives(&mut client, &server, ""))[3], "02");
}

fn an_upstream_may_want_another_format(column: Column) {
    let server = column.ok();
    let traceparent = format!("traceparent: 00-{TRACE}-{SPAN}-01\r\n");
    let (_proxy, mut client) = traced(column, &server, "{}", "propagate: [b3]");
    let request = arrives(&mut client, &server, &traceparent);
    // What is not asked for passes as it is.
    let all = of_trace(&request);
    assert!(all.starts_with(&format!("{traceparent}b3: ")), "{all}");
    let b3 = request.field("b3").expect("one is started");
    assert_eq!(b3.split('-').map(str::len).collect::<Vec<_>>(), [32, 16, 1]);
    let multi = format!(
        "X-B3-TraceId: {TRACE}\r\nX-B3-SpanId: {SPAN}\r\nX-B3-ParentSpanId: {SPAN}\r\n\
         X-B3-Sampled: 1\r\n"
    );
    let request = arrives(&mut client, &server, &multi);
    let span = request.field("x-b3-spanid").expect("it goes on");
    assert_ne!(span, SPAN);
    assert_eq!(
        of_trace(&request),
        format!(
            "x-b3-traceid: {TRACE}\r\nx-b3-spanid: {span}\r\nx-b3-parentspanid: {SPAN}\r\n\
             x-b3-sampled: 1\r\n"
        )
    );

    let (_proxy, mut client) = traced(column, &server, "{ sample: 100% }", "propagate: off");
    for fields in [
        "",
        &traceparent,
        "traceparent: nonsense\r\ntracestate: a=1\r\n",
    ] {
        assert_eq!(of_trace(&arrives(&mut client, &server, fields)), fields);
    }

    // The rules of an upstream have the last word.
    let more = "headers: { set: { traceparent: mine }, remove: [tracestate] }";
    let (_proxy, mut client) = traced(column, &server, "{}", more);
    let fields = format!("{traceparent}tracestate: a=1\r\n");
    let request = arrives(&mut client, &server, &fields);
    assert_eq!(of_trace(&request), "traceparent: mine\r\n");
}

fn a_reload_switches_it_on(column: Column) {
    let server = column.ok();
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let proxy = Proxy::start(column, &config(listen, &server, "", ""));
    let mut client = column.connect(listen);
    assert_eq!(of_trace(&arrives(&mut client, &server, "")), "");
    proxy.rewrite_config(&config(listen, &server, "{ sample: 100% }", ""));
    proxy.expect_metric("ambassador_config_reloads_total", &[], 1.0);
    assert_eq!(parent(&arrives(&mut client, &server, ""))[3], "03");
}

fn each_try_is_a_span_of_its_own(column: Column) {
    let server = column.server(|request| match request.target.as_str() {
        "/fails" => Answer::status(503),
        _ => Answer::ok("ok"),
    });
    let retry = "retry: { attempts: 3, base: 1ms }";
    let (_proxy, mut client) = traced(column, &server, "{}", retry);
    let call = Call::get("/fails").field("grpc-timeout", "9S");
    let call = call.field("traceparent", &format!("00-{TRACE}-{SPAN}-01"));
    assert_eq!(client.call(&call).status, 503);
    let tries = server.requests();
    let parents: Vec<_> = tries.iter().map(parent).collect();
    assert_eq!(parents.len(), 3);
    let mut spans = HashSet::from([SPAN.to_owned()]);
    for [_, trace, span, flags] in parents {
        assert_eq!((&*trace, &*flags), (TRACE, "01"));
        assert!(spans.insert(span), "{spans:?}");
    }
    let ids = tries.iter().map(|request| request.field("x-request-id"));
    assert_eq!(ids.collect::<HashSet<_>>().len(), 1);
}
