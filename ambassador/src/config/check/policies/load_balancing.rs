//! `load_balancing`: a word, or what `ring_hash` goes by.

use super::{Reading, headers};
use crate::config::raw;
use crate::config::read::{Either, Spanned};
use crate::policy::balance::{Key, LoadBalancing};

/// `None`: it is a mistake.
pub(super) fn read(
    raw: &Spanned<Either<raw::LoadBalancing, raw::Hashing>>,
    reading: &mut Reading<'_>,
) -> Option<LoadBalancing> {
    // What came before is gone, and where it came from.
    let of_these = |key: &String| key.starts_with("load_balancing");
    reading.origins.retain(|key, _| !of_these(key));
    let hashing = match &raw.value {
        Either::Short(word) => {
            reading.note("load_balancing", raw.place.line);
            return Some(word.meaning());
        }
        Either::Full(hashing) => hashing,
    };
    let key = match hashing.ring_hash.as_ref() {
        Some(by) => key(by, reading),
        None => {
            let what = "must be a word, or have ring_hash";
            reading.mistake_unless_inside(&raw.place, what);
            None
        }
    };
    key.map(LoadBalancing::RingHash)
}

fn key(raw: &Spanned<raw::HashKey>, reading: &mut Reading<'_>) -> Option<Key> {
    let header = reading.get("load_balancing.ring_hash.header", &raw.header);
    let source = reading.get("load_balancing.ring_hash.source", &raw.source);
    match (header, source) {
        (Some(name), None) => {
            let text = &name.value.0;
            headers::check_token(name, text, reading.found);
            Some(Key::Header(text.to_ascii_lowercase().into()))
        }
        (None, Some(source)) => Some(source.value.meaning()),
        _ => {
            let what = "must have a header or a source, and not both";
            reading.mistake_unless_inside(&raw.place, what);
            None
        }
    }
}
