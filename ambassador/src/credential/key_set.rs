//! The public keys of signed tokens, for those who verify them.
//!
//! A key is shown as long as a token may be accepted that it signed: through a rotation
//! both the old and the new one are.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde_json::{Value as Json, json};

use super::signing_key::SigningKey;

/// Servers accept a token for about so long after its end, as clocks differ.
const LEEWAY_SECONDS: u64 = 60;
/// More are no rotation any more. The one that ends first makes room.
const KEYS_MAX: usize = 64;

/// Public keys by the id of the key.
#[derive(Debug, Default)]
pub(crate) struct KeySet(HashMap<String, PublicKey>);

#[derive(Debug)]
struct PublicKey {
    key: Json,
    /// When the last token that it signed ends, in seconds since 1970.
    tokens_end: u64,
}

impl KeySet {
    /// Shows a key that has signed a token which ends at `expires_at`, at `now`; both in
    /// seconds since 1970.
    pub(crate) fn has_signed(&mut self, key: &SigningKey, expires_at: u64, now: u64) {
        self.0.retain(|_, key| key.is_shown(now));
        if !self.0.contains_key(key.id()) && self.0.len() >= KEYS_MAX {
            let first = self.0.iter().min_by_key(|(_, key)| key.tokens_end);
            if let Some(id) = first.map(|(id, _)| id.clone()) {
                self.0.remove(&id);
            }
        }
        let known = self
            .0
            .entry(key.id().to_owned())
            .or_insert_with(|| PublicKey {
                key: key.public(),
                tokens_end: 0,
            });
        known.tokens_end = known.tokens_end.max(expires_at);
    }

    /// The set as a document (RFC 7517 section 5), the newest key first.
    pub(crate) fn document(&self, now: u64) -> Json {
        let mut keys: Vec<_> = self.0.values().filter(|key| key.is_shown(now)).collect();
        keys.sort_by_key(|key| Reverse(key.tokens_end));
        let keys: Vec<_> = keys.into_iter().map(|key| &key.key).collect();
        json!({ "keys": keys })
    }
}

impl PublicKey {
    fn is_shown(&self, now: u64) -> bool {
        now < self.tokens_end.saturating_add(LEEWAY_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::signing_key::tests::keys;

    fn ids(set: &KeySet, now: u64) -> Vec<String> {
        let document = set.document(now);
        let keys = document["keys"].as_array().unwrap();
        keys.iter()
            .map(|key| key["kid"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_key_is_shown_until_its_last_token_has_ended() {
        let keys = keys();
        let [(_, old), (_, new), ..] = &keys[..] else {
            panic!()
        };
        let mut set = KeySet::default();
        assert_eq!(set.document(0), json!({ "keys": [] }));
        set.has_signed(old, 1_300, 1_000);
        set.has_signed(old, 1_500, 1_200);
        set.has_signed(old, 1_400, 1_250);
        assert_eq!(set.document(1_250), json!({ "keys": [old.public()] }));
        set.has_signed(new, 1_600, 1_300);
        assert_eq!(ids(&set, 1_559), [new.id(), old.id()]);
        assert_eq!(ids(&set, 1_560), [new.id()]);
        set.has_signed(new, 2_000, 1_700);
        assert_eq!(set.0.len(), 1);
        assert_eq!(ids(&set, 2_060), [""; 0]);
    }

    #[test]
    fn there_is_room_for_the_newest() {
        let keys = keys();
        let mut set = KeySet::default();
        for number in 0..KEYS_MAX as u64 {
            let key = PublicKey {
                key: json!({ "kid": "x" }),
                tokens_end: 1_000 + number,
            };
            set.0.insert(number.to_string(), key);
        }
        set.has_signed(&keys[0].1, 5_000, 1_000);
        assert_eq!(set.0.len(), KEYS_MAX);
        assert!(!set.0.contains_key("0"));
        assert_eq!(ids(&set, 1_000)[0], keys[0].1.id());
    }
}
