//! Limits how far the YAML parser looks ahead. Everything between two brackets
//! may still become a key, and the parser keeps a few hundred bytes for each word
//! until it knows. So the text ends early when it has looked at too many.

use std::cell::Cell;
use std::rc::Rc;
use std::str::Chars;

/// This many words take some 30 MiB. Each word also has a mark or a pair of
/// quotes. Five thousand upstreams in JSON have fewer.
const WEIGHT_MAX: u32 = 200_000;

/// The text of a file, which ends where the parser has looked too far ahead.
pub(super) struct BoundedText<'a> {
    text: Chars<'a>,
    lookahead: Lookahead,
}

/// How much the parser has looked at since its last event.
#[derive(Debug, Clone, Default)]
pub(super) struct Lookahead(Rc<Cell<u32>>);

impl Lookahead {
    /// The parser has returned an event.
    pub(super) fn settle(&self) {
        if !self.is_too_far() {
            self.0.set(0);
        }
    }

    /// Whether the text was cut off.
    pub(super) fn is_too_far(&self) -> bool {
        self.0.get() > WEIGHT_MAX
    }
}

impl<'a> BoundedText<'a> {
    pub(super) fn new(text: &'a str) -> (Self, Lookahead) {
        let lookahead = Lookahead::default();
        let ahead = Self {
            text: text.chars(),
            lookahead: lookahead.clone(),
        };
        (ahead, lookahead)
    }
}

impl Iterator for BoundedText<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        if self.lookahead.is_too_far() {
            return None;
        }
        let next = self.text.next()?;
        let weight = match next {
            ',' | '[' | ']' | '{' | '}' | ':' | '?' | '&' | '*' | '!' | '#' | '|' | '>' => 2,
            '"' | '\'' => 1,
            _ => return Some(next),
        };
        self.lookahead.0.set(self.lookahead.0.get() + weight);
        Some(next)
    }
}
