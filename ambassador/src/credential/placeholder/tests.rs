//! What of a field is a placeholder, and what becomes of the field.

use super::*;

fn secret_of(name: &[u8]) -> Option<&'static [u8]> {
    Some(match name {
        b"stripe" => b"sk_live_1",
        b"stripe-test" => b"sk_test_2",
        b"a.b_c" => b"three",
        b"short" => b"",
        // What stands for a secret is not looked into.
        b"again" => b"amb-placeholder-stripe",
        _ => return None,
    })
}

fn sent(name: &str, value: &str) -> Option<String> {
    let field = FieldText::of(name.as_bytes(), value.as_bytes());
    let value = field.with_secrets(secret_of)?;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

fn basic(pair: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(pair))
}

#[test]
fn a_secret_stands_where_its_placeholder_was() {
    for (value, expected) in [
        ("amb-placeholder-stripe", "sk_live_1"),
        ("Bearer amb-placeholder-stripe", "Bearer sk_live_1"),
        ("amb-placeholder-stripe-test", "sk_test_2"),
        ("key=amb-placeholder-stripe; x", "key=sk_live_1; x"),
        (
            "amb-placeholder-stripe:amb-placeholder-stripe-test,amb-placeholder-stripe",
            "sk_live_1:sk_test_2,sk_live_1",
        ),
        ("\u{fc}amb-placeholder-a.b_c\u{fc}", "\u{fc}three\u{fc}"),
        ("<amb-placeholder-short>", "<>"),
        ("amb-placeholder-again", "amb-placeholder-stripe"),
        (
            "amb-placeholder-@amb-placeholder-stripe",
            "amb-placeholder-@sk_live_1",
        ),
        (
            "amb-placeholder-other,amb-placeholder-stripe",
            "amb-placeholder-other,sk_live_1",
        ),
    ] {
        assert_eq!(
            sent("x-api-key", value).as_deref(),
            Some(expected),
            "{value}"
        );
    }
}

#[test]
fn what_is_no_placeholder_stays() {
    for value in [
        "",
        "stripe",
        "amb-placeholder-",
        "amb-placeholder",
        "amb-placeholder-other",
        "amb-placeholder-stripe2",
        "amb-placeholder-stripe-tes",
        "amb-placeholder-stripe.",
        "AMB-PLACEHOLDER-STRIPE",
        "amb-placeholder-Stripe",
        "amb-placeholder-amb-placeholder-stripe",
        "Basic Zm9v",
        "Basic",
        "Basic ?",
    ] {
        assert_eq!(sent("authorization", value), None, "{value}");
    }
}

/// As clients send user and password.
#[test]
fn a_pair_of_basic_is_looked_into() {
    for (pair, expected) in [
        ("amb-placeholder-stripe:", "sk_live_1:"),
        ("git:amb-placeholder-stripe-test", "git:sk_test_2"),
        (
            "amb-placeholder-a.b_c:amb-placeholder-stripe",
            "three:sk_live_1",
        ),
    ] {
        let expected = basic(expected);
        for (name, scheme) in [("authorization", "Basic "), ("AUTHORIZATION", "bAsIc  ")] {
            let value = basic(pair).replace("Basic ", scheme);
            let sent = sent(name, &value).expect(pair);
            let (_, encoded) = sent.split_once(' ').unwrap();
            assert_eq!(format!("Basic {encoded}"), expected, "{pair}");
        }
        // Elsewhere it is a word like others.
        assert_eq!(sent("x-api-key", &basic(pair)), None);
    }
    assert_eq!(
        sent("authorization", &basic("u:amb-placeholder-other")),
        None
    );
    // What cannot be decoded is looked through as it is.
    let odd = "Basic amb-placeholder-stripe";
    assert_eq!(
        sent("authorization", odd).as_deref(),
        Some("Basic sk_live_1")
    );
}

#[test]
fn names_are_told_in_their_order() {
    let names = |name: &str, value: &str| -> Vec<String> {
        let field = FieldText::of(name.as_bytes(), value.as_bytes());
        let names = field
            .names()
            .map(|name| String::from_utf8_lossy(name).into_owned());
        names.collect()
    };
    let value = "amb-placeholder-b amb-placeholder-a amb-placeholder-";
    assert_eq!(names("x-key", value), ["b", "a"]);
    assert_eq!(names("authorization", &basic("u:amb-placeholder-x")), ["x"]);
    assert!(names("x-key", "none").is_empty());
    assert!(is_name("a.b_c-1") && !is_name("") && !is_name("a b") && !is_name("\u{fc}"));
}
