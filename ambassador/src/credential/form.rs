//! Forms as token endpoints read them: `application/x-www-form-urlencoded` (RFC 6749
//! appendix B).

use super::secret::Secret;

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/x-www-form-urlencoded";

/// A form of these fields, in this order.
pub(crate) fn encoded(fields: &[(&str, &[u8])]) -> Secret {
    // Once as long as it may get: no copy is left behind where it would grow.
    let bytes = |(name, value): &(&str, &[u8])| 3 * (name.len() + value.len()) + 2;
    let mut form = Vec::with_capacity(fields.iter().map(bytes).sum());
    for (name, value) in fields {
        if !form.is_empty() {
            form.push(b'&');
        }
        push(&mut form, name.as_bytes());
        form.push(b'=');
        push(&mut form, value);
    }
    Secret::from(form)
}

/// A name and a secret as `Authorization: Basic` carries them to a token endpoint: each
/// encoded as in a form, then joined (RFC 6749 section 2.3.1).
pub(crate) fn basic_pair(name: &str, secret: &[u8]) -> Secret {
    let mut pair = Vec::with_capacity(3 * (name.len() + secret.len()) + 1);
    push(&mut pair, name.as_bytes());
    pair.push(b':');
    push(&mut pair, secret);
    Secret::from(pair)
}

fn push(out: &mut Vec<u8>, text: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text {
        match byte {
            b'*' | b'-' | b'.' | b'_' => out.push(byte),
            _ if byte.is_ascii_alphanumeric() => out.push(byte),
            b' ' => out.push(b'+'),
            _ => {
                let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
                out.extend_from_slice(&[b'%', DIGITS[high], DIGITS[low]]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(secret: Secret) -> String {
        String::from_utf8(secret.expose().to_vec()).unwrap()
    }

    #[test]
    fn every_byte_is_one_that_a_form_has() {
        let all: Vec<u8> = (0..=255).collect();
        let plain = "*-._0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let expected: String = all
            .iter()
            .map(|&byte| match char::from(byte) {
                ' ' => "+".to_owned(),
                c if plain.contains(c) => c.to_string(),
                _ => format!("%{byte:02X}"),
            })
            .collect();
        assert_eq!(text(encoded(&[("a", &all)])), format!("a={expected}"));
    }

    /// The example of RFC 6749 appendix B: U+0020, U+0025, U+0026, U+002B, U+00A3 and
    /// U+20AC.
    #[test]
    fn a_form_is_that_of_the_specification() {
        assert_eq!(
            text(encoded(&[("x", " %&+£€".as_bytes())])),
            "x=+%25%26%2B%C2%A3%E2%82%AC"
        );
        let fields: [(&str, &[u8]); 3] = [("a b", b"1=2"), ("c", b""), ("d", b"&")];
        assert_eq!(text(encoded(&fields)), "a+b=1%3D2&c=&d=%26");
        assert_eq!(text(encoded(&[])), "");
    }

    #[test]
    fn a_pair_has_one_colon() {
        assert_eq!(
            text(basic_pair("my:app", b"p:w %\xff")),
            "my%3Aapp:p%3Aw+%25%FF"
        );
    }
}
