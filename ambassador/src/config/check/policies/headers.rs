//! Header rules: names and values that a request can carry, and none that
//! the proxy itself answers for.

use super::Reading;
use crate::config::found::Found;
use crate::config::raw::Headers;
use crate::config::read::Spanned;
use crate::config::values::Text;
use crate::route::settings::HeaderRules;

/// Fields that describe the connection or the message as it is framed
/// (RFC 9110 section 7.6.1, RFC 9112 section 6), or that routing decides.
const OWNED: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-upstream-host",
];
/// All rules of one upstream have to fit into a request head of 64 KiB.
const VALUE_BYTES_MAX: usize = 8192;

/// The rules of a layer on top of those it inherits: its own win.
pub(super) fn read(raw: &Headers, rules: &mut HeaderRules, reading: &mut Reading<'_>) {
    let own = own(raw, reading.found);
    for name in set(raw).iter().map(|(name, _)| name) {
        reading.note(format!("headers.set.{}", name.value), name.place.line);
    }
    for name in removed(raw) {
        reading.note(format!("headers.remove.{}", name.value.0), name.place.line);
    }
    let inherited = std::mem::replace(rules, own);
    inherit(rules, &inherited);
}

fn set(raw: &Headers) -> &[(Spanned<String>, Spanned<Text>)] {
    raw.set.as_ref().map_or(&[], |set| &set.value.0)
}

fn removed(raw: &Headers) -> &[Spanned<Text>] {
    raw.remove.as_ref().map_or(&[], |remove| &remove.value)
}

fn own(raw: &Headers, found: &mut Found) -> HeaderRules {
    let mut rules = HeaderRules::default();
    for (name, value) in set(raw) {
        check_name(name, &name.value, found);
        check_value(value, found);
        if rules
            .set
            .iter()
            .any(|(other, _)| other.eq_ignore_ascii_case(name))
        {
            found.mistake_at(name, "is set twice: header names have no case");
        }
        rules.set.push((name.value.clone(), value.value.0.clone()));
    }
    for name in removed(raw) {
        let text = &name.value.0;
        check_name(name, text, found);
        if rules
            .set
            .iter()
            .any(|(other, _)| other.eq_ignore_ascii_case(text))
        {
            found.mistake_at(name, "is set and removed");
        }
        if rules
            .remove
            .iter()
            .any(|other| other.eq_ignore_ascii_case(text))
        {
            found.mistake_at(name, "is removed twice");
        }
        rules.remove.push(text.clone());
    }
    rules
}

fn inherit(rules: &mut HeaderRules, inherited: &HeaderRules) {
    let own = rules.clone();
    let names = |name: &str| {
        own.set
            .iter()
            .any(|(other, _)| other.eq_ignore_ascii_case(name))
            || own
                .remove
                .iter()
                .any(|other| other.eq_ignore_ascii_case(name))
    };
    let set = inherited.set.iter().filter(|(name, _)| !names(name));
    rules.set.extend(set.cloned());
    let remove = inherited.remove.iter().filter(|name| !names(name));
    rules.remove.extend(remove.cloned());
}

/// What is wrong with the name of a field that the user chose.
pub(super) fn check_name<T>(at: &Spanned<T>, name: &str, found: &mut Found) {
    if check_token(at, name, found) && OWNED.iter().any(|owned| owned.eq_ignore_ascii_case(name)) {
        found.mistake_at(at, "is a header that the proxy itself answers for");
    }
}

/// Whether a request could have a field of this name.
pub(super) fn check_token<T>(at: &Spanned<T>, name: &str, found: &mut Found) -> bool {
    // RFC 9110 section 5.6.2.
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let sound = !name.is_empty() && name.bytes().all(token);
    if !sound {
        found.mistake_at(at, "is no header name");
    }
    sound
}

fn check_value(value: &Spanned<Text>, found: &mut Found) {
    let text = &value.value.0;
    let visible = |b: u8| b == b'\t' || (b >= b' ' && b != 0x7f);
    if !text.bytes().all(visible) {
        found.mistake_at(value, "a header value has no control characters");
    } else if text.trim_matches([' ', '\t']) != text {
        found.mistake_at(value, "a header value neither starts nor ends with a space");
    } else if text.len() > VALUE_BYTES_MAX {
        found.mistake_at(
            value,
            format!("a header value has at most {VALUE_BYTES_MAX} bytes"),
        );
    }
}
