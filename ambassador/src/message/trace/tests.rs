use super::*;
use crate::message::sample;

const ALL: Settings = Settings {
    sample: 0.0,
    formats: Formats {
        tracecontext: true,
        b3: true,
        baggage: true,
    },
};
const W3C: Settings = Settings {
    formats: Formats {
        b3: false,
        ..ALL.formats
    },
    ..ALL
};
const B3: Settings = Settings {
    formats: Formats {
        tracecontext: false,
        ..ALL.formats
    },
    ..ALL
};

/// What a try of a request with these fields gets, `random` being the id of a
/// trace that begins here, and 0x5 the span of the try.
fn carried(settings: Settings, fields: &str) -> String {
    const RANDOM: u128 = 0xabc << 64 | 0xdef;
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let request = sample::request(&head);
    let context = TraceContext::of(&request, head.as_bytes(), &settings, RANDOM);
    let Some(context) = context else {
        return String::new();
    };
    let fields = context.fields(&request, head.as_bytes(), 0x5);
    let lines = fields.iter().map(|(name, value)| {
        let value = str::from_utf8(value).unwrap();
        format!("{name}: {value}\r\n")
    });
    lines.collect()
}

const STARTED: &str = "traceparent: 00-0000000000000abc0000000000000def-0000000000000005-02\r\n";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SHORT: &str = "a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn continued(flags: &str) -> String {
    format!("traceparent: 00-{TRACE}-0000000000000005-{flags}\r\n")
}

#[test]
fn a_trace_that_comes_goes_on() {
    for (version, flags, goes_on) in [
        ("00", "00", "00"),
        ("00", "01", "01"),
        ("00", "02", "02"),
        ("00", "03", "03"),
        ("00", "fd", "01"),
        ("cc", "03", "03"),
    ] {
        let fields = format!("TraceParent: \t {version}-{TRACE}-{SPAN}-{flags} \t\r\n");
        assert_eq!(carried(W3C, &fields), continued(goes_on), "{fields}");
    }
}

#[test]
fn what_is_unreadable_or_repeated_begins_a_new_one() {
    let one = format!("traceparent: 00-{TRACE}-{SPAN}-01\r\n");
    for fields in [
        String::new(),
        "traceparent: \r\n".to_owned(),
        format!("traceparent: ff-{TRACE}-{SPAN}-01\r\n"),
        format!("traceparent: 00-{TRACE}-{SPAN}-01-more\r\n"),
        format!("traceparent: 00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01\r\n"),
        format!("traceparent: 00-{}-{SPAN}-01\r\n", TRACE.to_uppercase()),
        format!("{one}{one}"),
        format!("{one}TRACEPARENT: nonsense\r\n"),
        format!("trace-parent: 00-{TRACE}-{SPAN}-01\r\n"),
    ] {
        // Its state belongs to nothing.
        let fields = format!("tracestate: a=1\r\n{fields}");
        assert_eq!(carried(W3C, &fields), STARTED, "{fields}");
    }
}

#[test]
fn the_share_decides_where_the_caller_did_not() {
    let always = |settings| Settings {
        sample: 1.0,
        ..settings
    };
    assert_eq!(carried(always(W3C), ""), STARTED.replace("-02", "-03"));
    for flags in ["00", "01"] {
        let fields = format!("traceparent: 00-{TRACE}-{SPAN}-{flags}\r\n");
        for settings in [W3C, always(W3C)] {
            assert_eq!(carried(settings, &fields), continued(flags), "{fields}");
        }
    }
    let undecided = format!("b3: {TRACE}-{SPAN}\r\n");
    let written = |decision| format!("b3: {TRACE}-0000000000000005-{decision}-{SPAN}\r\n");
    assert_eq!(carried(B3, &undecided), written(0));
    assert_eq!(carried(always(B3), &undecided), written(1));
    assert_eq!(
        carried(always(B3), &format!("b3: {TRACE}-{SPAN}-0\r\n")),
        written(0)
    );
}

#[test]
fn state_goes_on_in_one_field() {
    let parent = format!("traceparent: 00-{TRACE}-{SPAN}-01\r\n");
    for (fields, state) in [
        ("tracestate: a=1,b=2\r\n", "tracestate: a=1,b=2\r\n"),
        (
            "TraceState: a=1 ,\t b=2\r\nX: y\r\ntracestate:\r\nTRACESTATE: c=3\r\n",
            "tracestate: a=1,b=2,c=3\r\n",
        ),
        ("tracestate: \r\n", ""),
        ("trace-state: a=1\r\n", ""),
        ("tracestate: a=1\r\ntracestate: B=2\r\n", ""),
    ] {
        let expected = format!("{}{state}", continued("01"));
        assert_eq!(
            carried(W3C, &format!("{fields}{parent}")),
            expected,
            "{fields}"
        );
    }
}

#[test]
fn b3_goes_on_in_the_form_it_came_in() {
    let multi = |id: &str, last: &str| {
        format!(
            "x-b3-traceid: {id}\r\nx-b3-spanid: 0000000000000005\r\n\
             x-b3-parentspanid: {SPAN}\r\nx-b3-{last}\r\n"
        )
    };
    let came =
        |id: &str, last: &str| format!("X-B3-TraceId: {id}\r\nX-B3-SpanId: {SPAN}\r\n{last}");
    let single = |id: &str, state: &str| format!("b3: {id}-0000000000000005-{state}-{SPAN}\r\n");
    for (fields, expected) in [
        (format!("b3: {TRACE}-{SPAN}-1\r\n"), single(TRACE, "1")),
        (format!("b3: {TRACE}-{SPAN}-0\r\n"), single(TRACE, "0")),
        (format!("b3: {TRACE}-{SPAN}-d\r\n"), single(TRACE, "d")),
        (
            format!("b3: {SHORT}-{SPAN}-1-{SHORT}\r\n"),
            single(SHORT, "1"),
        ),
        (
            came(TRACE, "X-B3-Sampled: 1\r\n"),
            multi(TRACE, "sampled: 1"),
        ),
        (
            came(TRACE, "X-B3-Sampled: true\r\n"),
            multi(TRACE, "sampled: 1"),
        ),
        (
            came(SHORT, "X-B3-Sampled: 0\r\n"),
            multi(SHORT, "sampled: 0"),
        ),
        (came(TRACE, "X-B3-Flags: 1\r\n"), multi(TRACE, "flags: 1")),
        (
            came(TRACE, "X-B3-ParentSpanId: 1\r\n"),
            multi(TRACE, "sampled: 0"),
        ),
        // The single field wins.
        (
            format!(
                "b3: {SHORT}-{SPAN}-1\r\n{}",
                came(TRACE, "X-B3-Sampled: 0\r\n")
            ),
            single(SHORT, "1"),
        ),
    ] {
        assert_eq!(carried(B3, &fields), expected, "{fields}");
    }
}

#[test]
fn b3_that_names_no_trace_may_decide_about_a_new_one() {
    let single =
        |state: &str| format!("b3: 0000000000000abc0000000000000def-0000000000000005-{state}\r\n");
    for (fields, expected) in [
        (String::new(), "0"),
        ("b3: 0\r\n".to_owned(), "0"),
        ("b3: 1\r\n".to_owned(), "1"),
        ("b3: d\r\n".to_owned(), "d"),
        ("b3: 2\r\n".to_owned(), "0"),
        ("b3: 1\r\nb3: 1\r\n".to_owned(), "0"),
        (format!("b3: {TRACE}\r\n"), "0"),
        (format!("b3: {TRACE}-{SPAN}-2\r\n"), "0"),
        (format!("b3: {TRACE}-{SPAN}-1-1\r\n"), "0"),
        (format!("b3: {TRACE}-{SPAN}-1-{SPAN}-1\r\n"), "0"),
        (format!("b3: {TRACE}-0000000000000000-1\r\n"), "0"),
        (format!("b3: {}-{SPAN}-1\r\n", &TRACE[1..]), "0"),
    ] {
        assert_eq!(carried(B3, &fields), single(expected), "{fields}");
    }
    let multi = carried(B3, &format!("X-B3-TraceId: {TRACE}\r\nX-B3-Sampled: 1\r\n"));
    assert!(
        multi.starts_with("x-b3-traceid: 0000000000000abc0000000000000def\r\n"),
        "{multi}"
    );
    assert!(multi.ends_with("x-b3-sampled: 1\r\n"), "{multi}");
}

#[test]
fn formats_carry_the_same_trace() {
    let of_parent = carried(
        ALL,
        &format!("traceparent: 00-{TRACE}-{SPAN}-01\r\nb3: 0\r\n"),
    );
    let expected = format!(
        "{}b3: {TRACE}-0000000000000005-1-{SPAN}\r\n",
        continued("01")
    );
    assert_eq!(of_parent, expected);
    let of_b3 = carried(ALL, &format!("b3: {SHORT}-{SPAN}-1\r\ntracestate: a=1\r\n"));
    let expected = format!(
        "traceparent: 00-0000000000000000{SHORT}-0000000000000005-01\r\n\
         b3: {SHORT}-0000000000000005-1-{SPAN}\r\n"
    );
    assert_eq!(of_b3, expected);
    let off = Settings {
        formats: Formats::OFF,
        ..ALL
    };
    assert_eq!(
        carried(off, &format!("traceparent: 00-{TRACE}-{SPAN}-01\r\n")),
        ""
    );
}

#[test]
fn the_longest_of_all_fits() {
    let member = |key: char| format!("{key}={}", "v".repeat(126));
    let state: Vec<String> = ('a'..='c').map(member).collect();
    let state = format!("{},d={}", state.join(","), "v".repeat(512 - 3 * 129 - 2));
    let parent = format!("traceparent: 00-{TRACE}-{SPAN}-01\r\ntracestate: {state}\r\n");
    for (b3, last) in [
        ("", format!("b3: {TRACE}-0000000000000005-1-{SPAN}\r\n")),
        ("X-B3-Flags: 1\r\n", "x-b3-flags: 1\r\n".to_owned()),
    ] {
        let written = carried(ALL, &format!("{parent}{b3}"));
        assert!(written.contains(&format!(": {state}\r\n")), "{written}");
        assert!(written.ends_with(&last), "{written}");
    }
}
