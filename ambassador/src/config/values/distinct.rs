//! Lists.

use schemars::JsonSchema;
use serde_json::Value as Json;

use crate::config::findings::Findings;
use crate::config::read::{Field, Place, Read, Scalar, Spanned, inline_schema};
use crate::config::setting::Value;
use crate::config::yaml::Node;

/// A list that holds each value once.
#[derive(Debug, Clone)]
pub(in crate::config) struct Distinct<V>(pub(in crate::config) Vec<Spanned<V>>);

impl<V: Scalar + PartialEq> Read for Distinct<V> {
    fn read(node: &Node, place: &Place, findings: &mut Findings) -> Option<Self> {
        let list: Vec<Spanned<V>> = Read::read(node, place, findings)?;
        for (at, item) in list.iter().enumerate() {
            if list[..at].iter().any(|before| before.value == item.value) {
                findings.mistake_at(item, "is listed twice");
            }
        }
        Some(Self(list))
    }
}

impl<T, V: Value<T> + Scalar + PartialEq> Value<Vec<T>> for Distinct<V> {
    fn meaning(&self) -> Vec<T> {
        self.0.iter().map(|item| item.value.meaning()).collect()
    }

    fn written(list: &Vec<T>) -> Option<Json> {
        Some(list.iter().map(V::written).collect())
    }
}

// Where it may be absent as well.
impl<T, V: Value<T> + Scalar + PartialEq> Value<Option<Vec<T>>> for Distinct<V> {
    fn meaning(&self) -> Option<Vec<T>> {
        Some(self.meaning())
    }

    fn written(list: &Option<Vec<T>>) -> Option<Json> {
        <Self as Value<Vec<T>>>::written(list.as_ref()?)
    }
}

inline_schema!(Distinct<V> [V: JsonSchema]: |generator| generator.subschema_for::<Vec<V>>());

impl<V> Field<Distinct<V>> {
    /// What is in the list.
    pub(in crate::config) fn items(&self) -> &[Spanned<V>] {
        self.as_ref().map_or(&[], |list| &list.value.0)
    }
}
