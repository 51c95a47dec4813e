//! From the tree of the file to the raw layer: each type reads itself, notes
//! every mistake and goes on.

use std::ops::Deref;

use schemars::JsonSchema;

use super::findings::Findings;
use super::mistakes::Mistake;
use super::restrictions::Restrictions;
use super::secrets;
use super::yaml::{Key, Node, Value};

/// Entries of one list or mapping: some are compared each with each.
const ENTRIES_MAX: usize = 10_000;
/// The same where they are more than one value: an upstream takes some 10 KiB
/// until all is checked.
const PARTS_MAX: usize = 4_000;

/// Where a value stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) path: String,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Spanned<T> {
    pub(super) value: T,
    pub(super) place: Place,
    /// A scalar as it was written.
    pub(super) text: String,
}

/// Something a node of the file can be.
pub(super) trait Read: JsonSchema + Sized {
    /// `None` after a mistake has been noted.
    fn read(node: &Node, place: &Place, findings: &mut Findings) -> Option<Self>;

    /// Adds the keys in it, with what is special about each.
    fn restricted_keys<'a>(&'a self, _: &mut Vec<RestrictedKey<'a>>) {}
}

/// A key, what stands under it, and the mapping that it is in.
#[derive(Clone, Copy)]
pub(super) struct KeyValue<'a> {
    pub(super) key: &'a Key,
    pub(super) node: &'a Node,
    pub(super) place: &'a Place,
}

/// A key that is there, and what is special about it.
pub(super) struct RestrictedKey<'a> {
    pub(super) restrictions: Restrictions,
    pub(super) place: &'a Place,
    pub(super) text: &'a str,
}

/// A value written as one word or text.
pub(super) trait Scalar: JsonSchema + Sized {
    /// The value, or what is wrong with the text.
    fn parse(text: &str) -> Result<Self, String>;
}

/// A mapping whose keys are names the user chose.
#[derive(Debug, Clone, Default)]
pub(super) struct Named<T>(pub(super) Vec<(Spanned<String>, Spanned<T>)>);

/// A scalar, or a mapping that says more.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged, inline)]
pub(super) enum Either<S, M> {
    Short(S),
    Full(M),
}

/// What stands under a key, where the key is there and its value is sound. Boxed:
/// most keys are absent.
#[derive(Debug, Clone)]
pub(super) struct Field<T>(pub(super) Option<Box<Spanned<T>>>);

impl Findings {
    pub(super) fn mistake(&mut self, place: &Place, what: impl Into<String>) {
        self.note(place.say(what.into(), None));
    }

    /// Notes that something is missing in the mapping at this place, unless what is
    /// there was wrong, has been noted and left out.
    pub(super) fn mistake_unless_inside(&mut self, place: &Place, what: &str) {
        let inside = format!("{}.", place.path);
        let mut mistakes = self.mistakes.iter();
        if !mistakes.any(|mistake| mistake.path.starts_with(&inside)) {
            self.mistake(place, what);
        }
    }

    pub(super) fn mistake_at<T>(&mut self, value: &Spanned<T>, what: impl Into<String>) {
        self.mistake_of(&value.place, &value.text, what);
    }

    /// The same of the text at a place.
    pub(super) fn mistake_of(&mut self, place: &Place, text: &str, what: impl Into<String>) {
        let got = Some(text.to_owned()).filter(|text| !text.is_empty());
        self.note(place.say(what.into(), got));
    }

    /// A scalar where there should be none, or the other way round.
    pub(super) fn wrong_kind(&mut self, place: &Place, what: &str, value: &Value) {
        let (what, got) = match value {
            Value::Text(text) => (what.to_owned(), Some(text.clone())),
            Value::Null => (format!("{what}, got nothing"), None),
            Value::List(_) => (format!("{what}, got a list"), None),
            Value::Map(_) => (format!("{what}, got a mapping"), None),
        };
        self.note(place.say(what, got));
    }

    pub(super) fn warn(&mut self, place: &Place, what: impl Into<String>) {
        self.note_warning(place.say(what.into(), None));
    }

    pub(super) fn warn_at<T>(&mut self, value: &Spanned<T>, what: impl Into<String>) {
        let got = Some(value.text.clone()).filter(|text| !text.is_empty());
        self.note_warning(value.place.say(what.into(), got));
    }
}

impl Place {
    fn say(&self, what: String, got: Option<String>) -> Mistake {
        Mistake {
            line: self.line,
            path: self.path.clone(),
            what,
            got,
        }
    }

    pub(super) fn key(&self, key: &str, line: usize) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        let path = format!("{}{dot}{}", self.path, secrets::key(key));
        Self { line, path }
    }

    fn item(&self, number: usize, line: usize) -> Self {
        let path = format!("{}[{number}]", self.path);
        Self { line, path }
    }
}

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Read> Spanned<T> {
    pub(super) fn read(node: &Node, place: Place, findings: &mut Findings) -> Option<Self> {
        let value = T::read(node, &place, findings)?;
        let text = match &node.value {
            Value::Text(text) => text.clone(),
            _ => String::new(),
        };
        Some(Self { value, place, text })
    }

    /// Adds this key and those in it.
    pub(super) fn note_key<'a>(
        &'a self,
        restrictions: Restrictions,
        restricted_keys: &mut Vec<RestrictedKey<'a>>,
    ) {
        let (place, text) = (&self.place, self.text.as_str());
        restricted_keys.push(RestrictedKey {
            restrictions,
            place,
            text,
        });
        self.value.restricted_keys(restricted_keys);
    }
}

impl<T: Scalar> Read for T {
    fn read(node: &Node, place: &Place, findings: &mut Findings) -> Option<Self> {
        let Value::Text(text) = &node.value else {
            findings.wrong_kind(place, "must be one value", &node.value);
            return None;
        };
        match T::parse(text) {
            Ok(value) => Some(value),
            Err(what) => {
                findings.mistake_of(place, text, what);
                None
            }
        }
    }
}

impl<T: Read> Read for Vec<Spanned<T>>
where
    Self: JsonSchema,
{
    fn read(node: &Node, place: &Place, findings: &mut Findings) -> Option<Self> {
        let Value::List(list) = &node.value else {
            findings.wrong_kind(place, "must be a list", &node.value);
            return None;
        };
        check_entries(list.iter(), place, findings)?;
        let items = list.iter().enumerate().filter_map(|(number, node)| {
            Spanned::read(node, place.item(number, node.line), findings)
        });
        Some(items.collect())
    }
}

impl<T: Read> Read for Named<T> {
    fn read(node: &Node, place: &Place, findings: &mut Findings) -> Option<Self> {
        let mut named = Vec::new();
        for (key, node) in entries(node, place, findings)? {
            let place = place.key(&key.text, key.line);
            let name = Spanned {
                value: key.text.clone(),
                place: place.clone(),
                text: key.text.clone(),
            };
            if let Some(value) = Spanned::read(node, place, findings) {
                named.push((name, value));
            }
        }
        Some(Self(named))
    }
}

impl<S: Read, M: Read> Read for Either<S, M> {
    fn read(node: &Node, place: &Place, findings: &mut Findings) -> Option<Self> {
        match &node.value {
            Value::Map(_) => M::read(node, place, findings).map(Self::Full),
            _ => S::read(node, place, findings).map(Self::Short),
        }
    }

    fn restricted_keys<'a>(&'a self, restricted_keys: &mut Vec<RestrictedKey<'a>>) {
        match self {
            Self::Short(_) => {}
            Self::Full(full) => full.restricted_keys(restricted_keys),
        }
    }
}

impl<T> Default for Field<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Field<T> {
    pub(super) fn as_ref(&self) -> Option<&Spanned<T>> {
        self.0.as_deref()
    }
}

impl<T> Field<Vec<Spanned<T>>> {
    /// What is in the list.
    pub(super) fn items(&self) -> &[Spanned<T>] {
        self.as_ref().map_or(&[], |list| &list.value)
    }
}

impl<T> Field<Named<T>> {
    /// What is in the mapping.
    pub(super) fn items(&self) -> &[(Spanned<String>, Spanned<T>)] {
        self.as_ref().map_or(&[], |named| &named.value.0)
    }
}

/// Says what the schema of a kind of value is, which stands wherever the value may.
macro_rules! inline_schema {
    ($type:ty $([$($generics:tt)*])?: |$generator:pat_param| $schema:expr) => {
        impl$(<$($generics)*>)? schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                std::any::type_name::<Self>().into()
            }

            fn json_schema($generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $schema
            }
        }
    };
}
pub(super) use inline_schema;

inline_schema!(Field<T> [T: JsonSchema]: |generator| generator.subschema_for::<T>());
inline_schema!(Spanned<T> [T: JsonSchema]: |generator| generator.subschema_for::<T>());
inline_schema!(Named<T> [T: JsonSchema]: |generator| schemars::json_schema!({
    "type": "object",
    "additionalProperties": generator.subschema_for::<T>(),
}));

/// The entries of a mapping, each key once. Nothing at all is an empty one.
pub(super) fn entries<'a>(
    node: &'a Node,
    place: &Place,
    findings: &mut Findings,
) -> Option<Vec<(&'a Key, &'a Node)>> {
    let map = match &node.value {
        Value::Null => return Some(Vec::new()),
        Value::Map(map) => map,
        other => {
            findings.wrong_kind(place, "must be a mapping", other);
            return None;
        }
    };
    check_entries(map.iter().map(|(_, node)| node), place, findings)?;
    let mut entries: Vec<(&Key, &Node)> = Vec::with_capacity(map.len());
    let mut lines = std::collections::HashMap::new();
    for (key, value) in map {
        match lines.insert(key.text.as_str(), key.line) {
            Some(line) => findings.mistake(
                &place.key(&key.text, key.line),
                format!("is written twice, first on line {line}"),
            ),
            None => entries.push((key, value)),
        }
    }
    Some(entries)
}

fn check_entries<'a>(
    mut entries: impl ExactSizeIterator<Item = &'a Node>,
    place: &Place,
    findings: &mut Findings,
) -> Option<()> {
    let count = entries.len();
    let max = match entries.all(|entry| matches!(entry.value, Value::Text(_))) {
        true => ENTRIES_MAX,
        false => PARTS_MAX,
    };
    if count > max {
        findings.mistake(place, format!("has more than {max} entries"));
        return None;
    }
    Some(())
}

/// Notes a key that does not exist, with the one that was perhaps meant.
pub(super) fn unknown_key(key: &Key, keys: &[&str], place: &Place, findings: &mut Findings) {
    let words = keys.iter().map(|key| key_name(key));
    let meant = nearest(&key.text, words.filter(|_| findings.has_room()));
    let what = match meant {
        Some(meant) => format!("unknown key, did you mean {meant}?"),
        None => {
            let keys: Vec<&str> = keys.iter().map(|key| key_name(key)).collect();
            format!("unknown key; known here: {}", keys.join(", "))
        }
    };
    findings.mistake(&place.key(&key.text, key.line), what);
}

/// A word this long or longer is not worth comparing.
const COMPARED_BYTES_MAX: usize = 64;

/// The word at most a third of its letters away from `text`.
pub(super) fn nearest<'a>(text: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > COMPARED_BYTES_MAX {
        return None;
    }
    words
        .map(|word| (strsim::osa_distance(text, word), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1) && *distance < word.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// A field's name as a key: `r#match` is `match`.
pub(super) fn key_name(field: &str) -> &str {
    field.strip_prefix("r#").unwrap_or(field)
}

/// A mapping with fixed keys, each of which may be absent. In brackets stands what
/// is special about a key; behind two dots more keys, which another type reads.
macro_rules! object {
    (
        $(#[$meta:meta])*
        $name:ident {
            $(
                $(#[$field_meta:meta])*
                $field:ident: $type:ty $([$($mark:ident $(($why:literal))?),+])?,
            )*
            $(.. $rest:ident: $rest_type:ty as $section:expr)?
        }
    ) => {
        #[derive(Debug, Clone, Default, schemars::JsonSchema)]
        $(#[$meta])*
        #[schemars(default, deny_unknown_fields)]
        $(#[schemars(transform = |schema: &mut schemars::Schema| {
            <$rest_type>::describe_in($section, schema);
        })])?
        pub(in crate::config) struct $name {
            $(
                $(#[$field_meta])*
                pub(in crate::config) $field: $crate::config::read::Field<$type>,
            )*
            $(
                #[schemars(skip)]
                pub(in crate::config) $rest: $rest_type,
            )?
        }

        impl $name {
            /// Every key and what is special about it.
            pub(in crate::config) const KEYS: &[(&str, $crate::config::restrictions::Restrictions)] = {
                use $crate::config::restrictions::Restrictions;
                &[$((stringify!($field), Restrictions::NONE$($(.$mark($($why)?))+)?)),*]
            };

            /// What is special about the key of a field.
            pub(in crate::config) fn restrictions(field: &str) -> $crate::config::restrictions::Restrictions {
                let key = Self::KEYS.iter().find(|(key, _)| *key == field);
                key.map_or($crate::config::restrictions::Restrictions::NONE, |(_, restrictions)| *restrictions)
            }

            /// Whether it is one of its keys, which it reads.
            pub(in crate::config) fn read_key(
                &mut self,
                at: $crate::config::read::KeyValue<'_>,
                findings: &mut $crate::config::findings::Findings,
            ) -> bool {
                use $crate::config::read::{KeyValue, Field, Spanned, key_name};
                let KeyValue { key, node, place } = at;
                $(if key.text == key_name(stringify!($field)) {
                    let place = place.key(&key.text, key.line);
                    self.$field = Field(Spanned::read(node, place, findings).map(Box::new));
                    return true;
                })*
                false $(|| self.$rest.read_in($section, at, findings))?
            }
        }

        impl $crate::config::read::Read for $name {
            fn read(
                node: &$crate::config::yaml::Node,
                place: &$crate::config::read::Place,
                findings: &mut $crate::config::findings::Findings,
            ) -> Option<Self> {
                use $crate::config::read::{KeyValue, entries, unknown_key};
                let mut object = Self::default();
                for (key, node) in entries(node, place, findings)? {
                    if !object.read_key(KeyValue { key, node, place }, findings) {
                        let keys = Self::KEYS.iter().map(|(key, _)| *key);
                        $(let keys = keys.chain(<$rest_type>::keys_in($section));)?
                        unknown_key(key, &keys.collect::<Vec<_>>(), place, findings);
                    }
                }
                Some(object)
            }

            fn restricted_keys<'a>(&'a self, restricted_keys: &mut Vec<$crate::config::read::RestrictedKey<'a>>) {
                $(if let Some(value) = self.$field.as_ref() {
                    value.note_key(Self::restrictions(stringify!($field)), restricted_keys);
                })*
            }
        }
    };
}
pub(super) use object;
