//! Signatures of AWS, version 4, in header fields (AWS General Reference, "Signing AWS
//! API requests"): what a request says is written in one canonical way, hashed, and
//! signed with a key that holds for a day, a region and a service.

mod chunks;

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::{digest, hmac};
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::clock::calendar;

pub use chunks::ChunkSignatures;
pub(crate) use chunks::SIGNATURE_DIGITS;

/// The field that says what the body is.
pub(crate) const CONTENT_HASH_FIELD: &str = "x-amz-content-sha256";
/// The field with the time of the signature.
pub(crate) const DATE_FIELD: &str = "x-amz-date";
/// The field with the token of temporary keys.
pub(crate) const TOKEN_FIELD: &str = "x-amz-security-token";
/// Stands for the hash of a body that is not signed.
pub(crate) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// Keys of an account, and the token that belongs to temporary ones.
#[derive(Debug, PartialEq, Eq)]
pub struct AwsKeys {
    /// Its public name.
    pub id: String,
    /// What signatures are made with.
    pub secret: Secret,
    /// Sent along.
    pub token: Option<Secret>,
}

/// Signs the requests to one service.
pub struct Signer {
    keys: AwsKeys,
    scope: Scope,
    /// The key of the day of the last signature.
    day: ArcSwapOption<DayKey>,
}

/// What a signature holds for, beside the day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// As `eu-west-1`.
    pub region: String,
    /// As `s3`.
    pub service: String,
}

struct DayKey {
    day: u64,
    key: hmac::Key,
}

/// What is signed of a request, as it is sent.
#[derive(Debug, Clone, Copy)]
pub struct SignedParts<'a> {
    /// The method.
    pub method: &'a [u8],
    /// Path and query.
    pub target: &'a [u8],
    /// `host` and others; [`DATE_FIELD`] and [`TOKEN_FIELD`] are added.
    pub fields: &'a [(&'a [u8], &'a [u8])],
    /// The hash of the body in hexadecimal digits, or a word in its place.
    pub content: &'a str,
}

/// What shows the signature: values of the fields to add.
pub struct SignatureFields {
    /// Of `Authorization`.
    pub authorization: String,
    /// Of [`DATE_FIELD`].
    pub date: String,
    /// What signs the chunks of its body, where it has such.
    pub chunks: ChunkSignatures,
}

impl Scope {
    /// S3 reads a path once, takes it as it is, and wants to be told of the body.
    pub(crate) fn is_s3(&self) -> bool {
        matches!(&*self.service, "s3" | "s3-object-lambda" | "s3-outposts")
    }
}

impl Signer {
    /// Signs for this scope with these keys.
    pub fn new(keys: AwsKeys, scope: Scope) -> Self {
        Self {
            keys,
            scope,
            day: ArcSwapOption::empty(),
        }
    }

    /// What it signs for.
    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The token of temporary keys, for [`TOKEN_FIELD`].
    pub(crate) fn token(&self) -> Option<&Secret> {
        self.keys.token.as_ref()
    }

    /// Signs a request that is sent at `now`, in seconds since 1970. Servers take it for
    /// 15 minutes at most, or 5.
    pub fn sign(&self, parts: SignedParts<'_>, now: u64) -> SignatureFields {
        let date = basic_date(now);
        let token = self
            .token()
            .map(|token| (TOKEN_FIELD.as_bytes(), token.expose()));
        let added = [(DATE_FIELD.as_bytes(), date.as_bytes())];
        let all = parts.fields.iter().copied().chain(added).chain(token);
        let (fields, names) = canonical_fields(all);
        let (path, query) = split_target(parts.target);
        let canonical = [
            parts.method,
            &canonical_path(path, &self.scope),
            &canonical_query(query),
            &fields,
            names.as_bytes(),
            parts.content.as_bytes(),
        ];
        let canonical = Zeroizing::new(canonical.join(&b'\n'));
        let Scope { region, service } = &self.scope;
        let scope = format!("{}/{region}/{service}/aws4_request", &date[..8]);
        let hash = hash_of(&[&canonical]);
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hash}");
        let key = self.key_of(now / 86_400);
        let signature = key.sign(&to_sign);
        let id = &self.keys.id;
        SignatureFields {
            authorization: format!(
                "AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, \
                 Signature={signature}"
            ),
            chunks: ChunkSignatures::behind(key, format!("{date}\n{scope}"), signature),
            date,
        }
    }

    /// The key of a day, as a number of days since 1970.
    fn key_of(&self, day: u64) -> Arc<DayKey> {
        if let Some(known) = &*self.day.load()
            && known.day == day
        {
            return Arc::clone(known);
        }
        let secret = Zeroizing::new([b"AWS4", self.keys.secret.expose()].concat());
        let date = basic_date(day * 86_400);
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        for part in [
            &date[..8],
            &self.scope.region,
            &self.scope.service,
            "aws4_request",
        ] {
            let tag = hmac::sign(&key, part.as_bytes());
            key = hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref());
        }
        let made = Arc::new(DayKey { day, key });
        self.day.store(Some(Arc::clone(&made)));
        made
    }
}

impl DayKey {
    fn sign(&self, text: &str) -> String {
        Hex(hmac::sign(&self.key, text.as_bytes()).as_ref()).to_string()
    }
}

/// The SHA-256 of a body in pieces, as [`SignedParts::content`] wants it.
pub(crate) fn hash_of(pieces: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    pieces.iter().for_each(|piece| context.update(piece));
    Hex(context.finish().as_ref()).to_string()
}

/// `20150830T123600Z`.
fn basic_date(seconds: u64) -> String {
    let mut date = calendar::rfc3339(seconds);
    date.retain(|c| !matches!(c, '-' | ':'));
    date
}

/// A fragment is never sent.
fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    match target.iter().position(|b| *b == b'?') {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, &[]),
    }
}

/// Lines of names in lower case and values with single spaces, by name; values of one
/// name are one list. And the names with semicolons between them.
fn canonical_fields<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> (Vec<u8>, String) {
    let lower = |name: &[u8]| String::from_utf8_lossy(name).to_ascii_lowercase();
    let mut fields: Vec<_> = fields.map(|(name, value)| (lower(name), value)).collect();
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    let (mut lines, mut names) = (Vec::new(), String::new());
    for same in fields.chunk_by(|one, other| one.0 == other.0) {
        let name = &same[0].0;
        lines.extend_from_slice(name.as_bytes());
        for (at, (_, value)) in same.iter().enumerate() {
            lines.push(if at == 0 { b':' } else { b',' });
            push_trimmed(&mut lines, value);
        }
        lines.push(b'\n');
        if !names.is_empty() {
            names.push(';');
        }
        names.push_str(name);
    }
    (lines, names)
}

/// Without white space at both ends, and with one space for several.
fn push_trimmed(out: &mut Vec<u8>, value: &[u8]) {
    let is_space = |b: &u8| matches!(b, b' ' | b'\t');
    let words = value.split(is_space).filter(|word| !word.is_empty());
    for (at, word) in words.enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}

/// S3 has any path, and reads it as it was meant. Other services leave out what leads
/// nowhere, and take what was sent for the meaning: what is encoded is so twice.
fn canonical_path(path: &[u8], scope: &Scope) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len() + 16);
    if scope.is_s3() {
        push_encoded(&mut out, &decoded(path, Plus::Itself), Slash::Kept);
        return out;
    }
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in path.split(|b| *b == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    for segment in &segments {
        out.push(b'/');
        push_encoded(&mut out, segment, Slash::Encoded);
    }
    let is_directory = path.last() == Some(&b'/') && !segments.is_empty();
    if is_directory || segments.is_empty() {
        out.push(b'/');
    }
    out
}

/// Names and values encoded alike, by name and then by value.
fn canonical_query(query: &[u8]) -> Vec<u8> {
    let encoded = |text: &[u8]| {
        let mut out = Vec::with_capacity(text.len());
        push_encoded(&mut out, &decoded(text, Plus::Space), Slash::Encoded);
        out
    };
    let pairs = query.split(|b| *b == b'&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<_> = pairs
        .map(|pair| {
            let mut parts = pair.splitn(2, |b| *b == b'=');
            let mut part = || encoded(parts.next().unwrap_or_default());
            (part(), part())
        })
        .collect();
    pairs.sort();
    let pairs: Vec<_> = pairs
        .into_iter()
        .map(|(name, value)| [name, value].join(&b'='))
        .collect();
    pairs.join(&b'&')
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slash {
    Kept,
    Encoded,
}

/// RFC 3986 section 2.3: what is unreserved stays as it is.
fn push_encoded(out: &mut Vec<u8>, text: &[u8], slash: Slash) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text {
        let is_plain = byte.is_ascii_alphanumeric()
            || b"-._~".contains(&byte)
            || (byte == b'/' && slash == Slash::Kept);
        match is_plain {
            true => out.push(byte),
            false => out.extend_from_slice(&[
                b'%',
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]),
        }
    }
}

/// What a plus sign means: servers read queries as forms.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    Itself,
    Space,
}

/// A percent sign without two digits behind it is one.
fn decoded(text: &[u8], plus: Plus) -> Vec<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let byte = match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                at += 2;
                (high * 16 + low) as u8
            }
            (b'+', ..) if plus == Plus::Space => b' ',
            _ => byte,
        };
        out.push(byte);
        at += 1;
    }
    out
}

pub(super) struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            for digit in [byte >> 4, byte & 15] {
                f.write_char(char::from(b"0123456789abcdef"[usize::from(digit)]))?;
            }
        }
        Ok(())
    }
}

impl PartialEq for Signer {
    fn eq(&self, other: &Self) -> bool {
        self.keys == other.keys && self.scope == other.scope
    }
}

impl Eq for Signer {}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({:?} ***)", self.scope)
    }
}

#[cfg(test)]
mod tests;
