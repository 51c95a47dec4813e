//! Foreign text made safe for a log or a terminal: characters that move the
//! cursor, begin a line, change the direction of text or are invisible are
//! written as numbers.

use std::fmt::{self, Write as _};

/// Shows a text in one line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OneLine<'a>(pub &'a str);

/// Shows a text whose lines are its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines<'a>(pub &'a str);

/// Whether a character shows itself and nothing else.
pub(crate) fn is_visible(c: char) -> bool {
    match c {
        ' '..='~' => true,
        '\0'..='\u{9f}' | '\u{ad}' => false,
        // Marks of direction, and what has no width.
        '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{feff}' => false,
        // Separators of lines and paragraphs; embeddings and overrides; isolates.
        '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => false,
        '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => false,
        _ => true,
    }
}

/// Appends a text as part of a JSON string (RFC 8259 section 7).
pub(crate) fn push_json(out: &mut Vec<u8>, text: &str) {
    let plain = |b: u8| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\';
    let mut rest = text;
    loop {
        let end = rest.bytes().position(|b| !plain(b)).unwrap_or(rest.len());
        let (run, special) = rest.split_at(end);
        out.extend_from_slice(run.as_bytes());
        let Some(c) = special.chars().next() else {
            return;
        };
        rest = &special[c.len_utf8()..];
        match c {
            '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
            _ => push_char(out, c),
        }
    }
}

/// A JSON document with nothing but visible characters and the ends of its lines.
pub(crate) fn json(document: &str) -> String {
    let mut out = Vec::with_capacity(document.len());
    for c in document.chars() {
        match c {
            '\n' => out.push(b'\n'),
            _ => push_char(&mut out, c),
        }
    }
    String::from_utf8(out).expect("of whole characters")
}

fn push_char(out: &mut Vec<u8>, c: char) {
    if is_visible(c) {
        let mut utf8 = [0; 4];
        return out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
    }
    let mut utf16 = [0; 2];
    for unit in c.encode_utf16(&mut utf16) {
        use std::io::Write as _;
        write!(out, "\\u{unit:04x}").expect("a Vec takes every write");
    }
}

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match is_visible(c) {
            true => f.write_char(c),
            false => write!(f, "{}", c.escape_debug()),
        })
    }
}

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.0.split_inclusive('\n') {
            let (text, end) = match line.strip_suffix('\n') {
                Some(text) => (text, "\n"),
                None => (line, ""),
            };
            write!(f, "{}{end}", OneLine(text))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C0, DEL, C1, direction, separators, no width, beyond 16 bits.
    const HIDDEN: &str =
        "\0\x1b[31m\r\x7f\u{9b}\u{85}\u{61c}\u{202e}\u{2066}\u{2028}\u{2029}\u{feff}\u{e0041}";
    const SEEN: &str = " ~é\u{301}日本\u{1f600}\u{fffd}";

    #[test]
    fn what_is_not_seen_is_written_as_its_number() {
        let shown = OneLine(HIDDEN).to_string();
        assert!(shown.chars().all(is_visible), "{shown:?}");
        assert!(
            shown.starts_with("\\0\\u{1b}[31m\\r\\u{7f}\\u{9b}"),
            "{shown}"
        );
        assert_eq!(OneLine(SEEN).to_string(), SEEN);
        assert_eq!(OneLine("a\nb").to_string(), "a\\nb");
        assert_eq!(Lines("a\nb\u{85}c\n").to_string(), "a\nb\\u{85}c\n");
    }

    #[test]
    fn json_says_the_same_without_it() {
        let text = format!("{SEEN}\"\\/{HIDDEN}\n\t");
        let mut out = b"\"".to_vec();
        push_json(&mut out, &text);
        out.push(b'"');
        let written = String::from_utf8(out).unwrap();
        assert!(written.chars().all(is_visible), "{written:?}");
        let read: String = serde_json::from_str(&written).unwrap();
        assert_eq!(read, text);

        let document = serde_json::json!({ "a": text });
        let written = json(&format!("{document:#}"));
        assert!(
            written.chars().all(|c| c == '\n' || is_visible(c)),
            "{written:?}"
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&written).unwrap(),
            document
        );
    }
}
