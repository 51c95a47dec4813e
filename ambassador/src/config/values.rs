//! The kinds of value that a key can hold.

mod addresses;
mod codes;
mod distinct;
mod files;
mod keep;
mod log_format;
mod moment;
mod names;
mod numbers;
mod optional;
mod or_word;
mod propagation;
mod sizes;
mod statuses;
mod times;
mod urls;

use super::read::nearest;

pub(super) use addresses::{AbsolutePath, Address, Bind, Cidr, DnsName, Host, RouteHost, claim};
pub(super) use codes::Calls;
pub(super) use distinct::Distinct;
pub(super) use files::{CaFile, CertFile, ClientId, FilePath, ServerName, Verify};
pub(super) use keep::Kept;
pub(super) use log_format::LogFormat;
pub(super) use moment::Moment;
pub(super) use names::{
    FieldName, GrpcService, Method, OwnFieldName, PathPrefix, Text, User, Zone, is_token,
    own_field_mistake,
};
pub(super) use numbers::{Count, Flag, LeastShare, Percent, Port, Rate, Workers};
pub(super) use optional::{Off, OnOff, Optional};
pub(super) use or_word::{OrNone, OrOff};
pub(super) use propagation::Propagation;
pub(super) use sizes::{ByteRate, MemoryLimit, Size, size};
pub(super) use statuses::{STATUSES_WANTED, StatusRange};
pub(super) use times::{HedgeAfter, KeepAlive, Period, Time};
pub(super) use urls::Url;

/// A number written with digits only.
pub(super) fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// The word of a choice, or which there are.
pub(super) fn choose<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let all = || words.iter().map(|(word, _)| *word);
    let mut what = format!("must be one of {}", all().collect::<Vec<_>>().join(", "));
    if let Some(meant) = nearest(text, all()) {
        what = format!("{what}; did you mean {meant}?");
    }
    Err(what)
}

/// What each kind of value fills, and how the file writes what stands there.
macro_rules! fills {
    ($(
        $value:ident $(<$($param:ident: $type:ty),+>)? => $field:ty, |$it:ident| $written:expr;
    )*) => {$(
        impl $(<$(const $param: $type),+>)? $crate::config::setting::Value<$field>
            for $value $(<$($param),+>)?
        {
            fn meaning(&self) -> $field {
                self.0.clone()
            }

            fn written($it: &$field) -> Option<serde_json::Value> {
                $written
            }
        }

        // Where it may be absent as well.
        impl $(<$(const $param: $type),+>)? $crate::config::setting::Value<Option<$field>>
            for $value $(<$($param),+>)?
        {
            fn meaning(&self) -> Option<$field> {
                Some(self.0.clone())
            }

            fn written(meaning: &Option<$field>) -> Option<serde_json::Value> {
                let meaning = meaning.as_ref()?;
                <Self as $crate::config::setting::Value<$field>>::written(meaning)
            }
        }
    )*};
}

macro_rules! value_schemas {
    ($($name:ident $(<$($param:ident: $type:ty),+>)?: $schema:tt,)*) => {$(
        $crate::config::read::inline_schema! {
            $name $(<$($param),+> [$(const $param: $type),+])?: |_| schemars::json_schema!($schema)
        }
    )*};
}

/// Words of the file and what each means.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident: $target:ty {
        $($(#[$variant_meta:meta])* $variant:ident = $word:literal => $value:expr,)*
    }) => {
        #[derive(Debug, Clone, Copy, schemars::JsonSchema)]
        $(#[$meta])*
        #[schemars(inline)]
        pub(in crate::config) enum $name {
            $($(#[$variant_meta])* #[schemars(rename = $word)] $variant,)*
        }

        impl $crate::config::read::Scalar for $name {
            fn parse(text: &str) -> Result<Self, String> {
                $crate::config::values::choose(text, &[$(($word, Self::$variant)),*])
            }
        }

        impl $crate::config::setting::Value<$target> for $name {
            fn meaning(&self) -> $target {
                match self {
                    $(Self::$variant => $value,)*
                }
            }

            fn written(meaning: &$target) -> Option<serde_json::Value> {
                let words = [$(($word, $value)),*];
                let word = words.into_iter().find(|(_, value)| value == meaning);
                word.map(|(word, _)| word.into())
            }
        }
    };
}
pub(super) use {choice, fills, value_schemas};

choice! {
    /// Whether something is done.
    Switch: bool {
        /// No.
        Off = "off" => false,
        /// Yes.
        On = "on" => true,
    }
}
