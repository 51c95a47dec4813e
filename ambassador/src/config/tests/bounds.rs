//! What a file may cost, and what is said of one that costs more.

use super::load_str;

fn refused(text: &str) -> String {
    load_str("test", text).unwrap_err().to_string()
}

/// A whole file of what one of its parts is.
fn full(begin: &str, part: impl Fn(usize) -> String) -> String {
    let mut text = begin.to_owned();
    for number in 0.. {
        let part = part(number);
        if text.len() + part.len() > super::super::FILE_BYTES_MAX {
            break;
        }
        text.push_str(&part);
    }
    text
}

#[test]
fn what_costs_too_much_is_refused() {
    let values = "too many values";
    let brackets = "too much between one pair of brackets";
    let deep = "nested too deep";
    let word = "x".repeat(60_000);
    let nested: String = (0..30).map(|level| format!("&a{level} [")).collect();
    let chain = full("a0: &a0 [x]\n", |n| {
        format!("a{}: &a{} [*a{n}]\n", n + 1, n + 1)
    });
    let cases: [(String, &str); 15] = [
        (
            full(&format!("a: &a {word}\nb: ["), |_| "*a, ".into()),
            values,
        ),
        (
            full(&format!("a: &a {{ k: {word} }}\nb:\n"), |_| "- *a\n".into()),
            values,
        ),
        (
            format!(
                "a: {nested}{}{}",
                format!("{word}, ").repeat(40),
                "]".repeat(30)
            ),
            values,
        ),
        (full("", |n| format!("k{n}:\n")), values),
        (chain, deep),
        (full("a: ", |_| "- ".into()), "is not YAML"),
        (full("", |_| "- ".into()), deep),
        (full("a: ", |_| "{ a: ".into()), deep),
        (full("a: ", |_| "[".into()), "is not YAML"),
        (full("[", |_| ",".into()), brackets),
        (full("[", |_| "&a a,".into()), brackets),
        (full("{", |_| "a,".into()), brackets),
        (full("[", |_| "\"\"".into()), "is not YAML"),
        (
            format!("a: {}\n", "x".repeat(1 << 20)),
            "a value of more than 65536 bytes",
        ),
        (
            format!("? {}\n: b\n", "k".repeat(1000)),
            "a key of more than 256 bytes",
        ),
    ];
    for (text, expected) in cases {
        let said = refused(&text);
        let begin = &text[..text.len().min(60)];
        assert!(said.contains(expected), "{begin}: {said}");
        assert!(said.len() < 1000, "{begin}: {} bytes", said.len());
    }
}

#[test]
fn lists_and_what_is_told_have_an_end() {
    let hosts: String = (0..10_001).map(|n| format!("h{n}, ")).collect();
    let said = refused(&format!("upstreams: {{ u: {{ hosts: [{hosts}] }} }}"));
    assert!(
        said.contains("upstreams.u.hosts: has more than 10000 entries"),
        "{said}"
    );
    let upstreams: String = (0..4_001).map(|n| format!(" u{n}: {{}}\n")).collect();
    let said = refused(&format!("upstreams:\n{upstreams}"));
    assert!(
        said.contains("upstreams: has more than 4000 entries"),
        "{said}"
    );
    let unknown: String = (0..150).map(|n| format!("key{n}: 1\n")).collect();
    let said = refused(&unknown);
    assert_eq!(said.lines().count(), 101);
    assert!(said.ends_with("and 50 more mistakes"), "{said}");
}

/// In either form: nothing is refused that somebody may need.
#[test]
fn a_large_file_is_taken() {
    let upstream = |n: usize| {
        let address = format!("\"10.0.{}.{}:80\"", n / 250, n % 250);
        format!("\"u{n}\": {{\"hosts\": [\"h{n}.example\"], \"endpoints\": [{address}]}}")
    };
    let lines: String = (0..3_000).map(|n| format!("  {}\n", upstream(n))).collect();
    let checked = load_str("block", &format!("upstreams:\n{lines}")).unwrap();
    assert_eq!(checked.routes.upstreams.len(), 3_000);
    let parts: Vec<String> = (0..3_000).map(upstream).collect();
    let json = format!("{{\"upstreams\": {{{}}}}}", parts.join(", "));
    assert_eq!(load_str("flow", &json).unwrap().routes, checked.routes);
}

/// An alias costs what it stands for, wherever it stands.
#[test]
fn aliases_are_values_as_others() {
    let text = "upstreams:\n  a: &a { endpoints: &e [\"127.0.0.1:1\"], hosts: [a] }\n  \
                b: { endpoints: *e, hosts: [b] }\n";
    let checked = load_str("aliases", text).unwrap();
    let [a, b] = &checked.routes.upstreams[..] else {
        panic!("there are two");
    };
    assert_eq!(a.endpoints, b.endpoints);
    let said = refused("upstreams: &u { a: { hosts: [*u] } }\n");
    assert!(said.contains("alias of what contains it"), "{said}");
}
