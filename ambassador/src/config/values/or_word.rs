//! A word that may stand in place of a value.

use schemars::{JsonSchema, json_schema};
use serde_json::Value as Json;

use crate::config::read::{Scalar, inline_schema};
use crate::config::setting::Value;

macro_rules! or_word {
    ($(#[$doc:meta])* $name:ident: $word:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub(in crate::config) struct $name<V>(pub(in crate::config) Option<V>);

        impl<V: Scalar> Scalar for $name<V> {
            fn parse(text: &str) -> Result<Self, String> {
                if text == $word {
                    return Ok(Self(None));
                }
                let value = V::parse(text).map_err(|what| format!("{what}, or {}", $word))?;
                Ok(Self(Some(value)))
            }
        }

        impl<T, V: Value<T> + Scalar> Value<Option<T>> for $name<V> {
            fn meaning(&self) -> Option<T> {
                self.0.as_ref().map(V::meaning)
            }

            fn written(meaning: &Option<T>) -> Option<Json> {
                match meaning {
                    None => Some($word.into()),
                    Some(value) => V::written(value),
                }
            }
        }

        inline_schema!($name<V> [V: JsonSchema]: |generator| json_schema!({
            "anyOf": [{ "const": $word }, generator.subschema_for::<V>()],
        }));
    };
}

or_word! {
    /// A value that can be switched off.
    OrOff: "off"
}

or_word! {
    /// A limit that need not be.
    OrNone: "none"
}
