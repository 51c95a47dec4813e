//! `placeholders`: secrets that programs have a word for.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::auth::{self, Carrier, SecretFile};
use super::{File, NAME_BYTES_MAX, upstream_named};
use crate::config::findings::Findings;
use crate::config::read::{Spanned, object};
use crate::config::values::{Text, choice};
use crate::credential::placeholder::{PREFIX, is_name};
use crate::credential::settings::Auth;
use crate::route::settings::Upstream;

object! {
    /// A secret that stands in for a placeholder.
    #[schemars(extend("required" = ["value", "upstream"]))]
    Placeholder {
        /// The secret. Required.
        value: SecretFile,
        /// The upstream whose requests get it, which needs `tls` with `verify: full`, or
        /// `endpoints` on loopback. To others the placeholder goes as it is. Required.
        upstream: Text,
        /// Where it is looked for.
        #[schemars(extend("default" = ["header"]))]
        r#in: Vec<Spanned<Position>>,
    }
}

choice! {
    /// Where placeholders are looked for.
    Position: () {
        /// In the values of header fields, and in user and password of `Authorization:
        /// Basic`. Not in fields that describe the message, the connection or a trace.
        Header = "header" => (),
    }
}

/// Gives each upstream the secrets of its placeholders.
pub(super) fn check(file: &File, upstreams: &mut [Arc<Upstream>], findings: &mut Findings) {
    for (name, raw) in file.placeholders.items() {
        if !is_name(name) || name.value.len() > NAME_BYTES_MAX {
            let what = format!(
                "programs send {PREFIX}NAME; a name has 1 to {NAME_BYTES_MAX} letters, digits, '.', \
                 '_' or '-'"
            );
            findings.mistake_at(name, what);
        }
        if let Some(positions) = raw.r#in.as_ref().filter(|it| it.value.is_empty()) {
            // Items with mistakes of their own are missing from the list.
            let inside = format!("{}[", positions.place.path);
            let mut noted = findings.mistakes.iter();
            if !noted.any(|mistake| mistake.path.starts_with(&inside)) {
                let what = "must say where it is looked for, as [header]";
                findings.mistake(&positions.place, what);
            }
        }
        let value = auth::secret(&raw.value.value, &raw.place, "must have a value", findings);
        let Some(named) = raw.upstream.as_ref() else {
            findings.mistake_unless_inside(&raw.place, "must have an upstream");
            continue;
        };
        let index = upstream_named(named, upstreams, findings);
        let (Some(upstream), Some(value)) = (index.map(|index| &mut upstreams[index]), value)
        else {
            continue;
        };
        if let Some(what) = Carrier::of(upstream).mistake() {
            findings.mistake_at(named, what);
        }
        let placeholder = Auth::Placeholder {
            name: name.value.as_str().into(),
            value,
        };
        let placeholders = &mut Arc::make_mut(upstream).placeholders;
        placeholders.push(Arc::new(placeholder));
    }
}

/// As the file would write them.
pub(super) fn shown(upstreams: &[Arc<Upstream>]) -> Json {
    let mut shown = Map::new();
    for upstream in upstreams {
        for auth in &upstream.placeholders {
            if let Auth::Placeholder { name, value } = &**auth {
                let placeholder = json!({
                    "value": { "file": value.display().to_string() },
                    "upstream": &*upstream.name,
                    "in": ["header"],
                });
                shown.insert(name.to_string(), placeholder);
            }
        }
    }
    shown.into()
}
