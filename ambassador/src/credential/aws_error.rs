//! What AWS says where it takes keys no longer. Each protocol of its services has a place
//! of its own for the word: a field of the head, an element of XML (S3, query), or a
//! member of JSON.

use memchr::memmem;

/// The field with the word, where a service sends it.
pub(crate) const ERROR_TYPE_FIELD: &str = "x-amzn-errortype";

/// The statuses that come with it.
pub(crate) const STATUSES: [u16; 2] = [400, 403];

/// The word is near the beginning of a body.
pub(crate) const BODY_BYTES_MAX: usize = 4 << 10;

/// The keys have ended, are unknown by now, or belong to another token. S3, STS and the
/// JSON services have different words for it.
const OVER: [&[u8]; 8] = [
    b"ExpiredToken",
    b"ExpiredTokenException",
    b"InvalidAccessKeyId",
    b"InvalidClientTokenId",
    b"InvalidToken",
    b"RequestExpired",
    b"TokenRefreshRequired",
    b"UnrecognizedClientException",
];

/// Members of JSON that have the word, without the quote before.
const MEMBERS: [&[u8]; 3] = [b"__type\"", b"code\"", b"Code\""];

/// Whether the value of [`ERROR_TYPE_FIELD`] says that other keys may do better.
pub(crate) fn type_says_keys_are_over(value: &[u8]) -> bool {
    is_over(value)
}

/// The same of the beginning of a body.
pub(crate) fn body_says_keys_are_over(body: &[u8]) -> bool {
    let elements = behind_each(body, b"<Code>").map(|rest| up_to(rest, b"<"));
    let members = MEMBERS.iter().flat_map(|name| behind_each(body, name));
    let members = members.filter_map(|rest| {
        let value = rest.trim_ascii_start().strip_prefix(b":")?;
        let value = value.trim_ascii_start().strip_prefix(b"\"")?;
        Some(up_to(value, b"\""))
    });
    elements.chain(members).any(is_over)
}

/// A word may have a namespace before it and an address behind it, as in
/// `com.amazon.coral.service#ExpiredTokenException:http://...`.
fn is_over(word: &[u8]) -> bool {
    let at = word.iter().position(|byte| *byte == b'#');
    let word = up_to(&word[at.map_or(0, |at| at + 1)..], b":").trim_ascii();
    OVER.contains(&word)
}

/// What stands before the first of this, or all.
fn up_to<'a>(text: &'a [u8], end: &[u8]) -> &'a [u8] {
    &text[..memmem::find(text, end).unwrap_or(text.len())]
}

/// What follows each place of this.
fn behind_each<'a>(text: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    memmem::find_iter(text, name).map(|at| &text[at + name.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_wherever_the_protocols_of_aws_have_it() {
        for value in [
            "ExpiredTokenException",
            "ExpiredTokenException:http://internal.amazon.com/coral/com.amazon.coral.service/",
            "com.amazon.coral.service#UnrecognizedClientException",
        ] {
            assert!(type_says_keys_are_over(value.as_bytes()), "{value}");
        }
        for value in [
            "",
            "AccessDeniedException",
            "ExpiredTokenExceptions",
            "a#b#ExpiredToken",
        ] {
            assert!(!type_says_keys_are_over(value.as_bytes()), "{value}");
        }
        for body in [
            "<?xml version=\"1.0\"?>\n<Error><Code>ExpiredToken</Code><Message>The provided token \
             has expired.</Message></Error>",
            "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidClientTokenId</Code>",
            r#"{"__type":"com.amazon.coral.service#ExpiredTokenException","message":"m"}"#,
            r#"{"message": "m", "code" : "UnrecognizedClientException"}"#,
            r#"{"Code":"RequestExpired"}"#,
        ] {
            assert!(body_says_keys_are_over(body.as_bytes()), "{body}");
        }
        for body in [
            "",
            "<Error><Code>AccessDenied</Code><Message>ExpiredToken</Message>",
            "<Error><Message>&lt;Code>ExpiredToken</Message>",
            "<Error><Code>ExpiredTok",
            r#"{"__type":"AccessDeniedException","message":"\"code\": ExpiredToken"}"#,
            r#"{"__type""#,
        ] {
            assert!(!body_says_keys_are_over(body.as_bytes()), "{body}");
        }
    }
}
