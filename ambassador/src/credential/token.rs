//! What a source gives, checked: it has to fit into one field of a request.

use std::fmt;

use super::Secret;

/// Longer ones than any issuer makes; a server takes some 8 KiB of a head.
pub(crate) const TOKEN_BYTES_MAX: usize = 8 << 10;

/// Why it cannot be sent. Tells nothing of what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenMistake {
    /// There is nothing.
    Empty,
    /// It is longer than [`TOKEN_BYTES_MAX`].
    Long,
    /// It holds a line end or another control character.
    Control,
    /// It begins or ends with a blank, which no field value does.
    Blank,
    /// It holds what a bearer token does not (RFC 6750 section 2.1).
    NoToken,
}

/// Without the line end that editors and commands put behind it.
///
/// # Errors
/// It cannot be sent.
pub(crate) fn without_line_end(mut secret: Secret) -> Result<Secret, TokenMistake> {
    secret.trim_line_ends();
    let bytes = secret.expose();
    let is_blank = |byte: Option<&u8>| byte.is_some_and(|byte| b" \t".contains(byte));
    if bytes.is_empty() {
        return Err(TokenMistake::Empty);
    }
    if bytes.len() > TOKEN_BYTES_MAX {
        return Err(TokenMistake::Long);
    }
    if bytes.iter().any(u8::is_ascii_control) {
        return Err(TokenMistake::Control);
    }
    if is_blank(bytes.first()) || is_blank(bytes.last()) {
        return Err(TokenMistake::Blank);
    }
    Ok(secret)
}

/// Whether it may stand behind `Bearer`: visible characters, whatever issuers make
/// of the rule.
pub(crate) fn check_bearer(token: &Secret) -> Result<(), TokenMistake> {
    match token.expose().iter().all(u8::is_ascii_graphic) {
        true => Ok(()),
        false => Err(TokenMistake::NoToken),
    }
}

impl fmt::Display for TokenMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("holds nothing"),
            Self::Long => write!(f, "holds more than {TOKEN_BYTES_MAX} bytes"),
            Self::Control => f.write_str("holds more than one line, or a control character"),
            Self::Blank => f.write_str("holds a blank before or behind the secret"),
            Self::NoToken => f.write_str("holds a blank, or what is no ASCII: no bearer token"),
        }
    }
}

impl std::error::Error for TokenMistake {}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<u8>, TokenMistake> {
        let secret = without_line_end(Secret::from(text.as_bytes().to_vec()));
        secret.map(|secret| secret.expose().to_vec())
    }

    #[test]
    fn the_line_end_behind_it_is_no_part_of_it() {
        for text in ["a.b-c", "a.b-c\n", "a.b-c\r\n", "a.b-c\n\n"] {
            assert_eq!(read(text).unwrap(), b"a.b-c", "{text:?}");
        }
        assert_eq!(read("with a blank").unwrap(), b"with a blank");
    }

    #[test]
    fn what_would_be_more_than_a_field_is_refused() {
        for (text, mistake) in [
            ("", TokenMistake::Empty),
            ("\r\n", TokenMistake::Empty),
            ("a\r\nx-admin: yes", TokenMistake::Control),
            ("a\0", TokenMistake::Control),
            ("a\u{7f}b", TokenMistake::Control),
            (" a", TokenMistake::Blank),
            ("a\t\n", TokenMistake::Control),
            ("a ", TokenMistake::Blank),
        ] {
            assert_eq!(read(text), Err(mistake), "{text:?}");
        }
        let long = "x".repeat(TOKEN_BYTES_MAX);
        assert!(read(&long).is_ok());
        assert_eq!(read(&format!("{long}x")), Err(TokenMistake::Long));
    }

    #[test]
    fn a_bearer_token_is_one_word() {
        let check = |text: &str| check_bearer(&Secret::from(text.as_bytes().to_vec()));
        assert_eq!(check("eyJ.a-b_c~d+e/f=="), Ok(()));
        for text in ["two words", "schl\u{fc}ssel"] {
            assert_eq!(check(text), Err(TokenMistake::NoToken));
        }
    }
}
