//! Trace headers as their specifications say. The first table has the requests of
//! the public test-suite of W3C Trace Context (w3c/trace-context, `test/test.py`,
//! levels 1 and 2, strict), under the names of its tests.

use std::collections::HashSet;
use std::net::SocketAddr;

use ambassador_tests::server::Request;
use ambassador_tests::{
    Backend, Call, Caller, Client, Column, Proxy, Server, matrix, on_http1, ports, proxy,
};

matrix!(
    requests_of_the_public_suite_get_what_it_expects,
    each_request_of_a_trace_is_a_span_of_its_own,
    a_long_tracestate_keeps_512_bytes_in_order,
    b3_goes_on_in_both_forms,
    baggage_goes_on_as_it_came_within_its_limits,
);

on_http1!(blanks_around_values_mean_nothing,);

const TRACE: &str = "12345678901234567890123456789012";
const SHORT: &str = "5678901234567890";
const SPAN: &str = "1234567890123456";

/// A proxy that carries traces on in these formats, and a caller of it.
struct World {
    server: Server,
    listen: SocketAddr,
    client: Caller,
    _proxy: Proxy,
}

impl World {
    fn start(column: Column, propagate: &str, of_upstream: &str) -> World {
        let server = column.ok();
        let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let upstream = proxy::one_upstream(listen, server.address(), of_upstream);
        let tracing = format!("{{ sample: 0%, propagate: {propagate} }}");
        let config = format!("telemetry: {{ tracing: {tracing} }}\n{upstream}");
        let proxy = Proxy::start(column, &config);
        World {
            client: column.connect(listen),
            server,
            listen,
            _proxy: proxy,
        }
    }

    /// What arrives of a request with these fields.
    fn arrives(&mut self, fields: &str) -> Request {
        let call = Call::get("/").lines(fields);
        assert_eq!(self.client.call(&call).status, 200, "{fields}");
        self.server.last_request()
    }
}

/// The values of all fields of this name.
fn values<'a>(request: &'a Request, name: &str) -> Vec<&'a str> {
    let fields = request.fields.iter();
    let fields = fields.filter(|(known, _)| known.eq_ignore_ascii_case(name));
    fields.map(|(_, value)| value.as_str()).collect()
}

/// Its one `traceparent` in parts, all of them valid.
fn parent(request: &Request) -> [&str; 4] {
    let values = values(request, "traceparent");
    let [value] = values[..] else {
        panic!("one traceparent is expected: {values:?}");
    };
    let parts: Vec<&str> = value.split('-').collect();
    let parts: [&str; 4] = parts.try_into().expect("four parts");
    assert_eq!(parts.map(str::len), [2, 32, 16, 2], "{value}");
    let is_digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    assert!(value.replace('-', "").chars().all(is_digit), "{value}");
    let [version, trace, span, _] = parts;
    assert_eq!(version, "00", "{value}");
    assert!(trace.contains(|c| c != '0') && span.contains(|c| c != '0'));
    parts
}

/// What is expected of the trace of a request.
enum Trace {
    /// It goes on with these flags, in a span of the proxy's own.
    GoesOn(&'static str),
    /// It goes on with this `tracestate`.
    Keeps(String),
    /// Another one begins, without the `tracestate` that came.
    Begins,
}
use Trace::{Begins, GoesOn, Keeps};

/// A `traceparent` of the one trace, not sampled, before these fields.
fn with_parent(fields: &str) -> String {
    format!("traceparent: 00-{TRACE}-{SPAN}-00\r\n{fields}\r\n")
}

fn keeps(state: &str) -> Trace {
    Keeps(state.to_owned())
}

fn of_traceparent() -> Vec<(&'static str, String, Trace)> {
    let one = |value: &str| format!("traceparent: {value}\r\n");
    let ids = format!("{TRACE}-{SPAN}");
    let valid = one(&format!("00-{ids}-01"));
    let zeros = "0".repeat(32);
    vec![
        ("both_missing", String::new(), Begins),
        ("included", valid.clone(), GoesOn("01")),
        ("duplicated", format!("{valid}{valid}"), Begins),
        ("header_name", valid.replace("parent", "-parent"), Begins),
        ("header_name", valid.replace("parent", ".parent"), Begins),
        ("version_0x00", one(&format!("00-{ids}-01.")), Begins),
        ("version_0x00", one(&format!("00-{ids}-01-more")), Begins),
        ("version_0xcc", one(&format!("cc-{ids}-01")), GoesOn("01")),
        (
            "version_0xcc",
            one(&format!("cc-{ids}-01-a-b")),
            GoesOn("01"),
        ),
        ("version_0xcc", one(&format!("cc-{ids}-01.more")), Begins),
        ("version_0xff", one(&format!("ff-{ids}-01")), Begins),
        ("version_illegal", one(&format!(".0-{ids}-01")), Begins),
        ("version_illegal", one(&format!("0.-{ids}-01")), Begins),
        ("version_too_long", one(&format!("000-{ids}-01")), Begins),
        ("version_too_long", one(&format!("0000-{ids}-01")), Begins),
        ("version_too_short", one(&format!("0-{ids}-01")), Begins),
        (
            "trace_id_all_zero",
            one(&format!("00-{zeros}-{SPAN}-01")),
            Begins,
        ),
        ("trace_id_illegal", valid.replacen("-12", "-.2", 1), Begins),
        ("trace_id_illegal", valid.replace("2-", ".-"), Begins),
        ("trace_id_too_long", valid.replace("2-1", "23-1"), Begins),
        ("trace_id_too_short", valid.replace("2-1", "-1"), Begins),
        (
            "parent_id_all_zero",
            one(&format!("00-{TRACE}-{}-01", &zeros[..16])),
            Begins,
        ),
        ("parent_id_illegal", valid.replace("2-1", "2-."), Begins),
        ("parent_id_illegal", valid.replace("6-0", ".-0"), Begins),
        ("parent_id_too_long", valid.replace("6-0", "67-0"), Begins),
        ("parent_id_too_short", valid.replace("6-0", "-0"), Begins),
        ("trace_flags_illegal", one(&format!("00-{ids}-.0")), Begins),
        ("trace_flags_illegal", one(&format!("00-{ids}-0.")), Begins),
        (
            "trace_flags_too_long",
            one(&format!("00-{ids}-001")),
            Begins,
        ),
        ("trace_flags_too_short", one(&format!("00-{ids}-1")), Begins),
        (
            "propagates_random_flag",
            one(&format!("00-{ids}-02")),
            GoesOn("02"),
        ),
        (
            "propagates_random_flag",
            one(&format!("00-{ids}-03")),
            GoesOn("03"),
        ),
        // Not in the suite: upper-case digits, and flags that nobody knows yet.
        ("upper case", valid.replace("9012-1", "ABCD-1"), Begins),
        ("unknown flags", one(&format!("00-{ids}-fe")), GoesOn("02")),
        (
            "missing_with_tracestate",
            "tracestate: foo=1\r\n".into(),
            Begins,
        ),
        (
            "broken_with_tracestate",
            format!("{}tracestate: foo=1\r\n", one("00")),
            Begins,
        ),
    ]
}

fn of_tracestate() -> Vec<(&'static str, String, Trace)> {
    let values: String = (b' '..=b'~').map(char::from).collect();
    let values = values.replace([',', '='], "");
    let letters = "abcdefghijklmnopqrstuvwxyz0123456789_-*/";
    let (longest, too_long) = ("z".repeat(256), "z".repeat(257));
    let many = |count| {
        let members = (1..=count).map(|n| format!("bar{n:02}={n:02}"));
        members.collect::<Vec<_>>()
    };
    let in_fields = |members: &[String]| {
        let fields = members.chunks(10).map(|some| some.join(","));
        let fields = fields.map(|some| format!("tracestate: {some}\r\n"));
        fields.collect::<String>().trim_end().to_owned()
    };
    let mut rows = Vec::new();
    for (name, fields, state) in [
        ("included", "foo=1,bar=2", "foo=1,bar=2"),
        ("duplicated_keys", "foo=1,foo=1", "foo=1"),
        ("duplicated_keys", "foo=1,foo=2", "foo=1"),
        ("duplicated_keys", "foo=1\nfoo=2", "foo=1"),
        (
            "multiple_headers",
            "foo=1,bar=2\nrojo=1,congo=2\nbaz=3",
            "foo=1,bar=2,rojo=1,congo=2,baz=3",
        ),
        ("empty_header", "", ""),
        ("empty_header", "foo=1\n", "foo=1"),
        ("empty_header", "\nfoo=1", "foo=1"),
        (
            "ows_handling",
            "foo=1 \t , \t bar=2, \t baz=3",
            "foo=1,bar=2,baz=3",
        ),
        (
            "ows_handling",
            "foo=1\t \t,\t \tbar=2,\t \tbaz=3",
            "foo=1,bar=2,baz=3",
        ),
        (
            "all_allowed_characters",
            &format!("{letters}={values}"),
            &format!("{letters}={values}"),
        ),
        (
            "all_allowed_characters",
            &format!("{letters}@a-z0-9_-*/={values}"),
            &format!("{letters}@a-z0-9_-*/={values}"),
        ),
        ("key_illegal", "foo =1", ""),
        ("key_illegal", "FOO=1", ""),
        ("key_illegal", "foo.bar=1", ""),
        ("vendor_format", "foo@=1,bar=2", "foo@=1,bar=2"),
        ("vendor_format", "@foo=1,bar=2", ""),
        ("vendor_format", "foo@@bar=1,bar=2", "foo@@bar=1,bar=2"),
        (
            "vendor_format",
            "foo@bar@baz=1,bar=2",
            "foo@bar@baz=1,bar=2",
        ),
        (
            "key_length",
            &format!("foo=1\n{longest}=1"),
            &format!("foo=1,{longest}=1"),
        ),
        ("key_length", &format!("foo=1\n{too_long}=1"), ""),
        ("value_illegal", "foo=bar=baz", ""),
        ("value_illegal", "foo=,bar=3", ""),
        // Not in the suite: a key of level 2, a blank within, empty members.
        ("level 2", "0key=1,9t@s=2", "0key=1,9t@s=2"),
        ("blanks", "foo= 1 2 ,bar=3", "foo= 1 2,bar=3"),
        ("empty members", "foo=1,,\t,bar=2,", "foo=1,bar=2"),
    ] {
        let fields: Vec<_> = fields
            .split('\n')
            .map(|f| format!("tracestate: {f}"))
            .collect();
        rows.push((name, with_parent(&fields.join("\r\n")), keeps(state)));
    }
    rows.push(("header_name", with_parent("trace-state: foo=1"), keeps("")));
    rows.push(("header_name", with_parent("trace.state: foo=1"), keeps("")));
    rows.push((
        "member_count_limit",
        with_parent(&in_fields(&many(32))),
        keeps(&many(32).join(",")),
    ));
    rows.push((
        "member_count_limit",
        with_parent(&in_fields(&many(33))),
        keeps(""),
    ));
    rows
}

fn requests_of_the_public_suite_get_what_it_expects(column: Column) {
    let mut world = World::start(column, "[tracecontext]", "");
    let mut rows = of_traceparent();
    rows.extend(of_tracestate());
    for (name, fields, expected) in rows {
        let request = world.arrives(&fields);
        let [_, trace, span, flags] = parent(&request);
        assert_ne!(span, SPAN, "{name}");
        let expected_state = match &expected {
            Begins => {
                // Its id is random, and it is not sampled.
                assert_eq!((trace != TRACE, flags), (true, "02"), "{name}: {fields}");
                ""
            }
            GoesOn(expected) => {
                assert_eq!((trace, flags), (TRACE, *expected), "{name}: {fields}");
                ""
            }
            Keeps(state) => {
                assert_eq!((trace, flags), (TRACE, "00"), "{name}: {fields}");
                state
            }
        };
        let expected_state: Vec<&str> = match expected_state {
            "" => Vec::new(),
            state => vec![state],
        };
        assert_eq!(
            values(&request, "tracestate"),
            expected_state,
            "{name}: {fields}"
        );
    }
}

/// As a service does that is called once and calls others three times.
fn each_request_of_a_trace_is_a_span_of_its_own(column: Column) {
    let mut world = World::start(column, "[tracecontext]", "");
    for first in [with_parent("tracestate: foo=1"), String::new()] {
        let request = world.arrives(&first);
        let [_, trace, span, flags] = parent(&request).map(str::to_owned);
        let mut spans = HashSet::from([span.clone()]);
        for _ in 0..3 {
            let next = format!("traceparent: 00-{trace}-{span}-{flags}\r\ntracestate: bar=2\r\n");
            let request = world.arrives(&next);
            let [_, next_trace, next_span, next_flags] = parent(&request);
            assert_eq!((next_trace, next_flags), (&*trace, &*flags));
            assert!(spans.insert(next_span.to_owned()), "{spans:?}");
            assert_eq!(values(&request, "tracestate"), ["bar=2"]);
        }
    }
}

fn a_long_tracestate_keeps_512_bytes_in_order(column: Column) {
    let mut world = World::start(column, "[tracecontext]", "");
    let member = |key: char, bytes: usize| format!("{key}={}", "v".repeat(bytes - 2));
    let (a, b, c, d) = (
        member('a', 128),
        member('b', 129),
        member('c', 128),
        member('d', 128),
    );
    let (e, f) = (member('e', 125), member('f', 30));
    let field = |members: &[&str]| {
        let fields = members.iter().map(|member| format!("tracestate: {member}"));
        with_parent(&fields.collect::<Vec<_>>().join("\r\n"))
    };
    for (came, kept) in [
        // 512 bytes, with their commas.
        (&[&*a, &c, &d, &e][..], [&*a, &c, &d, &e].join(",")),
        // The longer one leaves first, then the last.
        (&[&b, &a, &c, &d, &e], [&*a, &c, &d, &e].join(",")),
        (&[&a, &c, &d, &e, &f], [&*a, &c, &d, &e].join(",")),
        (&[&a, &b, &c, &d, &f, &e], [&*a, &c, &d, &f].join(",")),
    ] {
        let request = world.arrives(&field(came));
        assert_eq!(values(&request, "tracestate"), [kept]);
    }
}

fn b3_goes_on_in_both_forms(column: Column) {
    let mut world = World::start(column, "[b3]", "");
    let multi =
        |trace: &str, more: &str| format!("X-B3-TraceId: {trace}\r\nX-B3-SpanId: {SPAN}\r\n{more}");
    for (fields, trace, state) in [
        (format!("b3: {TRACE}-{SPAN}-1-{SHORT}\r\n"), TRACE, "1"),
        (format!("b3: {TRACE}-{SPAN}-0\r\n"), TRACE, "0"),
        (format!("b3: {SHORT}-{SPAN}-d\r\n"), SHORT, "d"),
        (format!("b3: {TRACE}-{SPAN}\r\n"), TRACE, "0"),
        // The single field is the newer one.
        (
            format!(
                "b3: {SHORT}-{SPAN}-1\r\n{}",
                multi(TRACE, "X-B3-Sampled: 0\r\n")
            ),
            SHORT,
            "1",
        ),
    ] {
        let request = world.arrives(&fields);
        let b3 = values(&request, "b3").join("|");
        let parts: Vec<&str> = b3.split('-').collect();
        let [went, span, decision, caller] = parts[..] else {
            panic!("{fields}: {b3}");
        };
        assert_eq!((went, decision, caller), (trace, state, SPAN), "{fields}");
        assert!(span.len() == 16 && span != SPAN, "{b3}");
        assert_eq!(values(&request, "x-b3-traceid"), [""; 0], "{fields}");
    }
    for (fields, trace, expected) in [
        (
            multi(TRACE, "X-B3-Sampled: 1\r\n"),
            TRACE,
            ("x-b3-sampled", "1"),
        ),
        (
            multi(TRACE, "X-B3-Sampled: true\r\n"),
            TRACE,
            ("x-b3-sampled", "1"),
        ),
        (
            multi(SHORT, "X-B3-Sampled: 0\r\n"),
            SHORT,
            ("x-b3-sampled", "0"),
        ),
        (
            multi(SHORT, "X-B3-Sampled: false\r\n"),
            SHORT,
            ("x-b3-sampled", "0"),
        ),
        (
            multi(
                TRACE,
                &format!("X-B3-ParentSpanId: {SHORT}\r\nX-B3-Flags: 1\r\n"),
            ),
            TRACE,
            ("x-b3-flags", "1"),
        ),
    ] {
        let request = world.arrives(&fields);
        assert_eq!(values(&request, "x-b3-traceid"), [trace], "{fields}");
        assert_eq!(values(&request, "x-b3-parentspanid"), [SPAN], "{fields}");
        assert_ne!(values(&request, "x-b3-spanid"), [SPAN], "{fields}");
        let decisions = ["x-b3-sampled", "x-b3-flags"].map(|name| (name, values(&request, name)));
        for (name, values) in decisions {
            let expected = (name == expected.0).then_some(expected.1);
            assert_eq!(values, Vec::from_iter(expected), "{fields}");
        }
        assert_eq!(values(&request, "b3"), [""; 0], "{fields}");
    }
    // Without ids: what begins is recorded or not, and has no parent.
    for (fields, state) in [
        ("b3: 0\r\n", "0"),
        ("b3: 1\r\n", "1"),
        ("b3: d\r\n", "d"),
        ("", "0"),
    ] {
        let b3 = values(&world.arrives(fields), "b3").join("|");
        let parts: Vec<&str> = b3.split('-').collect();
        assert_eq!(
            parts.iter().map(|part| part.len()).collect::<Vec<_>>(),
            [32, 16, 1],
            "{b3}"
        );
        assert_eq!(parts[2], state, "{fields}");
    }
}

fn baggage_goes_on_as_it_came_within_its_limits(column: Column) {
    let member = format!("key={}", "v".repeat(4_000 - 4));
    // 8,192 bytes, and a member more.
    let fits = format!("{member},{member},k={}", "v".repeat(188));
    let long = format!("{fits},last=1");
    for (propagate, of_upstream, bounded) in [
        ("[tracecontext, baggage]", "", true),
        ("[tracecontext]", "", false),
        ("[tracecontext, baggage]", "propagate: off", false),
    ] {
        let mut world = World::start(column, propagate, of_upstream);
        assert_eq!(values(&world.arrives(""), "baggage"), [""; 0]);
        let fields = "baggage: a=1 , b=2;meta=x\r\nBaggage: c=%20,,a=3\r\n";
        let came = ["a=1 , b=2;meta=x", "c=%20,,a=3"];
        assert_eq!(
            values(&world.arrives(fields), "baggage"),
            came,
            "{propagate}"
        );
        let request = world.arrives(&format!("baggage: {long}\r\n"));
        let expected = match bounded {
            true => &fits,
            false => &long,
        };
        assert_eq!(values(&request, "baggage"), [expected], "{propagate}");
    }
}

fn blanks_around_values_mean_nothing(backend: Backend) {
    let world = World::start(backend.into(), "[tracecontext]", "");
    let mut client = Client::connect(world.listen);
    for (before, after) in [
        ("", ""),
        (" ", ""),
        ("\t", ""),
        ("", " "),
        ("", "\t"),
        ("\t ", " \t"),
    ] {
        for name in ["traceparent", "TraceParent", "TrAcEpArEnT", "TRACEPARENT"] {
            client.send(format!(
                "GET / HTTP/1.1\r\nHost: web.test\r\n{name}:{before}00-{TRACE}-{SPAN}-01{after}\r\n\
                 TrAcEsTaTe:{before}foo=1{after}\r\n\r\n"
            ));
            assert_eq!(client.response("GET").status, 200);
            let request = world.server.last_request();
            let [_, trace, _, flags] = parent(&request);
            assert_eq!((trace, flags), (TRACE, "01"), "{before:?} {after:?}");
            assert_eq!(values(&request, "tracestate"), ["foo=1"]);
        }
    }
}
