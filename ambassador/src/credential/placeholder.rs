//! Placeholders: words that programs send in place of secrets, in the fields of a head.
//!
//! A placeholder is `amb-placeholder-` and a name, up to the first byte that no name has.
//! The longest run of such bytes is the name, so `stripe` is not found in `stripe-test`.
//! In `Authorization: Basic` the pair of user and password is looked into (RFC 7617
//! section 2).

use std::ops::Range;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use memchr::memmem;
use zeroize::Zeroizing;

/// What a placeholder begins with.
pub const PREFIX: &str = "amb-placeholder-";

/// Placeholders that one head may hold: each may stand for 8 KiB.
pub(crate) const OCCURRENCES_MAX: usize = 16;

const BASIC: &[u8] = b"Basic ";

/// Whether a name can be told from what stands behind it.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_of_name)
}

/// A field in which placeholders are looked for.
pub struct FieldText<'a> {
    /// What stands before the part that is encoded; empty where none is.
    scheme: &'a [u8],
    text: Text<'a>,
}

enum Text<'a> {
    /// The value itself.
    Plain(&'a [u8]),
    /// What is encoded in it. A program may send secrets of its own in it.
    Pair(Zeroizing<Vec<u8>>),
}

impl<'a> FieldText<'a> {
    /// That of a field with this name and value.
    pub fn of(name: &[u8], value: &'a [u8]) -> Self {
        let plain = Self {
            scheme: b"",
            text: Text::Plain(value),
        };
        if !name.eq_ignore_ascii_case(b"authorization") {
            return plain;
        }
        let Some((scheme, encoded)) = value.split_at_checked(BASIC.len()) else {
            return plain;
        };
        if !scheme.eq_ignore_ascii_case(BASIC) {
            return plain;
        }
        match BASE64_STANDARD.decode(encoded.trim_ascii()) {
            Ok(pair) => Self {
                scheme,
                text: Text::Pair(Zeroizing::new(pair)),
            },
            Err(_) => plain,
        }
    }

    /// The names of its placeholders, in their order.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        let text = self.bytes();
        occurrences(text).map(move |found| &text[found.start + PREFIX.len()..found.end])
    }

    /// Its value with secrets in place of placeholders; `None`: it has none of those
    /// that `secret_of` knows.
    pub fn with_secrets<'s>(
        &self,
        secret_of: impl Fn(&[u8]) -> Option<&'s [u8]>,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let text = self.bytes();
        let secret_of =
            |found: &Range<usize>| secret_of(&text[found.start + PREFIX.len()..found.end]);
        let secrets = occurrences(text).filter_map(|found| Some((secret_of(&found)?, found)));
        let secrets: Vec<(&[u8], Range<usize>)> = secrets.collect();
        if secrets.is_empty() {
            return None;
        }
        // Nothing moves once it is there: what moves leaves a copy behind.
        let length: usize = secrets.iter().map(|(secret, _)| secret.len()).sum();
        let mut out = Zeroizing::new(Vec::with_capacity(text.len() + length));
        let mut at = 0;
        for (secret, found) in secrets {
            out.extend_from_slice(&text[at..found.start]);
            out.extend_from_slice(secret);
            at = found.end;
        }
        out.extend_from_slice(&text[at..]);
        Some(match self.text {
            Text::Plain(_) => out,
            Text::Pair(_) => {
                let encoded = Zeroizing::new(BASE64_STANDARD.encode(&*out));
                Zeroizing::new([self.scheme, encoded.as_bytes()].concat())
            }
        })
    }

    fn bytes(&self) -> &[u8] {
        match &self.text {
            Text::Plain(value) => value,
            Text::Pair(pair) => pair,
        }
    }
}

/// Where placeholders stand, with their names.
fn occurrences(text: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + memmem::find(&text[at..], PREFIX.as_bytes())?;
            let name = start + PREFIX.len();
            let length = text[name..].iter().take_while(|byte| is_of_name(**byte));
            at = name + length.count();
            if at > name {
                return Some(start..at);
            }
        }
    })
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

#[cfg(test)]
mod tests;
