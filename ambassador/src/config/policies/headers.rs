//! `headers`: checks that names and values are valid, and that the proxy does not
//! set these headers itself.

use serde_json::{Value as Json, json};

use crate::config::findings::Findings;
use crate::config::read::{Named, Place, Spanned, object};
use crate::config::secrets;
use crate::config::setting::{Layer, Setting, Shown, View, below};
use crate::config::values::{Text, own_field_mistake};
use crate::route::settings::HeaderRules;

/// All rules of one upstream have to fit into a request head of 64 KiB.
const VALUE_BYTES_MAX: usize = 8192;

object! {
    /// Changes to request headers.
    Headers {
        /// Headers set on each request; they replace headers of the same name.
        set: Named<Text>,
        /// Names of headers removed from each request.
        remove: Vec<Spanned<Text>>,
    }
}

/// The rules of a layer on top of those it inherits: its own win.
impl Setting<HeaderRules> for Headers {
    fn lay(&self, _: &Place, over: &mut HeaderRules, key: &str, layer: &mut Layer<'_>) {
        let rules = self.rules(layer.findings);
        for (name, _) in self.set.items() {
            layer.note(&below(&below(key, "set"), &name.value), name.place.line);
        }
        for name in self.remove.items() {
            layer.note(
                &below(&below(key, "remove"), &name.value.0),
                name.place.line,
            );
        }
        let inherited = std::mem::replace(over, rules.clone());
        let set = inherited.set.into_iter();
        over.set.extend(set.filter(|(name, _)| !rules.names(name)));
        let remove = inherited.remove.into_iter();
        over.remove.extend(remove.filter(|name| !rules.names(name)));
    }

    /// Names hold dots, as keys do: they are shown apart.
    fn show(_: &HeaderRules, _: &str, _: View, _: &mut Vec<Shown>) {}
}

pub(super) fn shown(rules: &HeaderRules) -> Json {
    // Names do not tell which of them carries a secret.
    let set = rules.set.iter();
    let set = set.map(|(name, _)| (name.clone(), secrets::MASK.into()));
    json!({ "set": Json::Object(set.collect()), "remove": rules.remove })
}

impl Headers {
    /// What the layer itself says.
    fn rules(&self, findings: &mut Findings) -> HeaderRules {
        let mut rules = HeaderRules::default();
        let is = |one: &str, other: &str| one.eq_ignore_ascii_case(other);
        for (name, value) in self.set.items() {
            if let Some(what) = own_field_mistake(name) {
                findings.mistake_at(name, what);
            }
            if let Some(what) = value_mistake(&value.value.0) {
                findings.mistake_at(value, what);
            }
            if rules.set.iter().any(|(other, _)| is(other, name)) {
                findings.mistake_at(name, "is set twice: header names have no case");
            }
            rules.set.push((name.value.clone(), value.value.0.clone()));
        }
        for name in self.remove.items() {
            let text = &name.value.0;
            if let Some(what) = own_field_mistake(text) {
                findings.mistake_at(name, what);
            }
            if rules.set.iter().any(|(other, _)| is(other, text)) {
                findings.mistake_at(name, "is set and removed");
            }
            if rules.remove.iter().any(|other| is(other, text)) {
                findings.mistake_at(name, "is removed twice");
            }
            rules.remove.push(text.clone());
        }
        rules
    }
}

fn value_mistake(text: &str) -> Option<String> {
    let visible = |b: u8| b == b'\t' || (b >= b' ' && b != 0x7f);
    if !text.bytes().all(visible) {
        return Some("a header value has no control characters".to_owned());
    }
    if text.trim_matches([' ', '\t']) != text {
        return Some("a header value neither starts nor ends with a space".to_owned());
    }
    let long = || format!("a header value has at most {VALUE_BYTES_MAX} bytes");
    (text.len() > VALUE_BYTES_MAX).then(long)
}
