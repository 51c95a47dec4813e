//! What a setting is. Each is declared once, as an entry of a group:
//!
//! ```text
//! settings! {
//!     /// How long things may take.
//!     Timeouts for limits::Timeouts as timeouts {
//!         /// From the dial to an established connection.
//!         connect: Period = timeouts.connect,
//!         /// From the first byte of a request's head to its end.
//!         head: Period [of_requests, not_in_routes("is over before ...")] = timeouts.head,
//!     }
//! }
//! ```
//!
//! - `connect` is the key, and the comment its text in schema and reference.
//! - [`Value`]s (`Period`, `Count<1, 100>`, ...) say what may stand there, range
//!   included, and what is said of anything else.
//! - The place behind `=` is the field of the area's settings that the value fills.
//!   What the area's `Default` has there is the default of the key, and is written
//!   nowhere else.
//! - [`Restrictions`] say where it may not be written, to what it does not apply,
//!   and whether a change needs a restart.
//!
//! What becomes of a key without a field is written by hand: references to others.
//!
//! A layer (`defaults`, upstream, route) changes what it says, key by key; a list
//! replaces the whole list. Another way to merge is a [`Setting`] written by hand
//! (`headers`). What keys must be together is a function of the group (`checked by`).
//!
//! From the entries follow the reader, the merging, `check`, the JSON Schema, the
//! reference, `/config`, `explain` and the table in the README.

use std::collections::BTreeMap;

use schemars::Schema;
use serde_json::{Map, Value as Json};

use super::checked::Origin;
use super::findings::Findings;
use super::read::{Place, Read, key_name};
use super::restrictions::{Restrictions, Section};
use crate::route::settings::Protocol;

/// A key, as `pool.max_idle`, and what is in effect, as the file writes it.
pub(super) type Shown = (String, Json);

/// What may stand under a key whose settings are a `T`: a value, or a group of keys.
pub(super) trait Setting<T>: Read {
    /// Puts what a layer says in place of what those before it said.
    fn lay(&self, place: &Place, over: &mut T, key: &str, layer: &mut Layer<'_>);

    /// Adds what is in effect; what a file cannot say is left out.
    fn show(settings: &T, key: &str, view: View, shown: &mut Vec<Shown>);
}

/// A value, and what fills a field of type `T` with it.
pub(super) trait Value<T>: Read {
    /// What it means.
    fn meaning(&self) -> T;

    /// How the file writes a meaning; `None`: it cannot.
    fn written(meaning: &T) -> Option<Json>;
}

/// One layer while it is laid over those before it.
pub(super) struct Layer<'a> {
    /// Where the values of keys came from that are not built in.
    pub(super) origins: &'a mut BTreeMap<String, Origin>,
    /// Who the layer is, given the line of a key.
    pub(super) origin: &'a dyn Fn(usize) -> Origin,
    pub(super) findings: &'a mut Findings,
}

/// Which settings are shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    /// Those that mean something to it,
    pub(super) protocol: Protocol,
    /// that may stand there,
    pub(super) section: Section,
    /// and of which a reload can change none, if that is asked for.
    pub(super) needing_restart: bool,
}

impl<T, V: Value<T>> Setting<T> for V {
    fn lay(&self, place: &Place, over: &mut T, key: &str, layer: &mut Layer<'_>) {
        layer.note(key, place.line);
        *over = self.meaning();
    }

    fn show(settings: &T, key: &str, view: View, shown: &mut Vec<Shown>) {
        if let Some(value) = V::written(settings) {
            view.put(key, value, shown);
        }
    }
}

impl Layer<'_> {
    /// The value of this key is what the layer says on this line.
    pub(super) fn note(&mut self, key: &str, line: usize) {
        self.origins.insert(key.to_owned(), (self.origin)(line));
    }

    /// The layer says something else in place of all there was under this key.
    pub(super) fn forget(&mut self, key: &str) {
        self.origins.retain(|known, _| {
            let rest = known.strip_prefix(key);
            !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
    }

    /// Notes that something is missing in the mapping at this place, unless
    /// what is there was wrong, has been noted and left out.
    pub(super) fn mistake_unless_inside(&mut self, place: &Place, what: &str) {
        self.findings.mistake_unless_inside(place, what);
    }
}

impl View {
    /// All that there is.
    pub(super) const WHOLE: Self = Self {
        protocol: Protocol::Auto,
        section: Section::Upstream,
        needing_restart: false,
    };

    /// All that a reload cannot change.
    pub(super) const NEEDING_RESTART: Self = Self {
        needing_restart: true,
        ..Self::WHOLE
    };

    /// Adds a value, if it is one of those.
    pub(super) fn put(self, key: &str, value: Json, shown: &mut Vec<Shown>) {
        if !self.needing_restart {
            shown.push((key.to_owned(), value));
        }
    }

    /// What is shown of a key with these marks, if anything.
    pub(super) fn of(self, restrictions: Restrictions) -> Option<Self> {
        let has_requests = self.protocol != Protocol::Tcp;
        let is_shown =
            (has_requests || !restrictions.of_requests) && restrictions.allows(self.section);
        is_shown.then_some(Self {
            needing_restart: self.needing_restart && !restrictions.needs_restart,
            ..self
        })
    }
}

/// A mapping for each group.
pub(super) fn grouped(shown: Vec<Shown>) -> Map<String, Json> {
    let mut groups = Map::new();
    for (key, value) in shown {
        let (group, rest) = key.split_once('.').unwrap_or((&key, ""));
        let mut at = groups.entry(group).or_insert(Json::Null);
        for name in rest.split('.').filter(|name| !name.is_empty()) {
            at = &mut at[name];
        }
        *at = value;
    }
    groups
}

/// A value as it stands in a sentence or table.
pub(super) fn in_one_line(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Array(list) if !list.is_empty() => {
            list.iter().map(in_one_line).collect::<Vec<_>>().join(", ")
        }
        Json::Object(mapping) => {
            let entry = |(key, value)| format!("{key}: [{}]", in_one_line(value));
            let entries: Vec<_> = mapping.iter().map(entry).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

/// The key of a field in the group at `key`.
pub(super) fn below(key: &str, field: &str) -> String {
    let name = key_name(field);
    match key {
        "" => name.to_owned(),
        group => format!("{group}.{name}"),
    }
}

/// Completes the schema of a group with what its entries and the area say.
pub(super) fn describe<S: Setting<T>, T: Default>(
    schema: &mut Schema,
    keys: &[(&str, Restrictions)],
) {
    let properties = schema.get_mut("properties").and_then(Json::as_object_mut);
    let Some(properties) = properties else {
        return;
    };
    let mut defaults = Vec::new();
    S::show(&T::default(), "", View::WHOLE, &mut defaults);
    for (key, default) in defaults {
        if let Some(property) = properties.get_mut(&key) {
            property["default"] = default;
        }
    }
    for (key, restrictions) in keys {
        let property = properties.get_mut(key_name(key));
        let text = property.and_then(|property| property.get_mut("description"));
        if let Some(Json::String(text)) = text {
            text.push_str(&restrictions.text());
        }
    }
}

/// A group of settings, as the head of this file explains. It makes the mapping as
/// it is written, and a [`Setting`] of it.
macro_rules! settings {
    (
        $(#[$meta:meta])*
        $group:ident for $settings:ty as $it:ident $(, checked by $check:path)? {
            $(
                $(#[$doc:meta])*
                $key:ident: $value:ty $([$($mark:ident $(($why:literal))?),+])? $(= $field:expr)?,
            )*
        }
    ) => {
        $crate::config::read::object! {
            $(#[$meta])*
            #[schemars(transform = $group::describe)]
            $group { $($(#[$doc])* $key: $value $([$($mark $(($why))?),+])?,)* }
        }

        impl $group {
            fn describe(schema: &mut schemars::Schema) {
                $crate::config::setting::describe::<Self, $settings>(schema, Self::KEYS);
            }
        }

        impl $crate::config::setting::Setting<$settings> for $group {
            fn lay(
                &self,
                place: &$crate::config::read::Place,
                $it: &mut $settings,
                key: &str,
                layer: &mut $crate::config::setting::Layer<'_>,
            ) {
                use $crate::config::read::{Place, Spanned};
                use $crate::config::setting::{Layer, Setting, below};
                $($(if let Some(Spanned { value, place, .. }) = self.$key.as_ref() {
                    let key = below(key, stringify!($key));
                    <$value as Setting<_>>::lay(value, place, &mut $field, &key, layer);
                })?)*
                let checks: &[fn(&Self, &Place, &mut $settings, &mut Layer<'_>)] = &[$($check)?];
                checks.iter().for_each(|check| check(self, place, $it, layer));
            }

            fn show(
                $it: &$settings,
                key: &str,
                view: $crate::config::setting::View,
                shown: &mut Vec<$crate::config::setting::Shown>,
            ) {
                use $crate::config::setting::{Setting, below};
                $($(if let Some(view) = view.of(Self::restrictions(stringify!($key))) {
                    let key = below(key, stringify!($key));
                    <$value as Setting<_>>::show(&$field, &key, view, shown);
                })?)*
            }
        }
    };
}
pub(super) use settings;
