//! Groups of keys that may be absent as a whole: left out, or `off`.

use schemars::JsonSchema;

use crate::config::findings::Findings;
use crate::config::read::{Either, Place, Read, RestrictedKey, Scalar, inline_schema};
use crate::config::setting::{Layer, Setting, Shown, View};
use crate::config::yaml::Node;

/// The word `off` in place of a mapping.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Off;

/// The words `on` and `off` in place of a mapping.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) enum OnOff {
    /// The group with its defaults.
    On,
    /// No group.
    Off,
}

/// A group that is in effect where a layer has it, with what that layer says.
#[derive(Debug, Clone)]
pub(in crate::config) struct Optional<G>(pub(in crate::config) G);

impl Scalar for Off {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self),
            _ => Err("must be off or a mapping".to_owned()),
        }
    }
}

impl Scalar for OnOff {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err("must be on, off or a mapping".to_owned()),
        }
    }
}

super::value_schemas! {
    Off: { "const": "off" },
    OnOff: { "anyOf": [{ "const": "off" }, { "enum": ["on"] }] },
}

/// `off` undoes what the layers before say.
impl<G: Setting<T>, T: Default> Setting<Option<T>> for Either<Off, G> {
    fn lay(&self, place: &Place, over: &mut Option<T>, key: &str, layer: &mut Layer<'_>) {
        match self {
            Self::Full(group) => group.lay(place, over.get_or_insert_default(), key, layer),
            Self::Short(Off) => {
                layer.forget(key);
                layer.note(key, place.line);
                *over = None;
            }
        }
    }

    fn show(settings: &Option<T>, key: &str, view: View, shown: &mut Vec<Shown>) {
        match settings {
            Some(settings) => G::show(settings, key, view, shown),
            None => view.put(key, "off".into(), shown),
        }
    }
}

/// `on` keeps what the layers before say.
impl<G: Setting<T>, T: Default> Setting<Option<T>> for Either<OnOff, G> {
    fn lay(&self, place: &Place, over: &mut Option<T>, key: &str, layer: &mut Layer<'_>) {
        match self {
            Self::Full(group) => group.lay(place, over.get_or_insert_default(), key, layer),
            Self::Short(OnOff::On) => {
                layer.note(key, place.line);
                over.get_or_insert_default();
            }
            Self::Short(OnOff::Off) => {
                layer.forget(key);
                layer.note(key, place.line);
                *over = None;
            }
        }
    }

    fn show(settings: &Option<T>, key: &str, view: View, shown: &mut Vec<Shown>) {
        match settings {
            Some(settings) => G::show(settings, key, view, shown),
            None => view.put(key, "off".into(), shown),
        }
    }
}

impl<G: Setting<T>, T: Default> Setting<Option<T>> for Optional<G> {
    fn lay(&self, place: &Place, over: &mut Option<T>, key: &str, layer: &mut Layer<'_>) {
        self.0.lay(place, over.get_or_insert_default(), key, layer);
    }

    fn show(settings: &Option<T>, key: &str, view: View, shown: &mut Vec<Shown>) {
        if let Some(settings) = settings {
            G::show(settings, key, view, shown);
        }
    }
}

impl<G: Read> Read for Optional<G> {
    fn read(node: &Node, place: &Place, findings: &mut Findings) -> Option<Self> {
        G::read(node, place, findings).map(Self)
    }

    fn restricted_keys<'a>(&'a self, restricted_keys: &mut Vec<RestrictedKey<'a>>) {
        self.0.restricted_keys(restricted_keys);
    }
}

inline_schema!(Optional<G> [G: JsonSchema]: |generator| generator.subschema_for::<G>());
