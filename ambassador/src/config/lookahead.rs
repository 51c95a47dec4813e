//! The text of a file on its way to the YAML parser, which may have to look far
//! ahead: everything between two brackets can still turn out to be a key. It
//! keeps a few hundred bytes for each word that it looks at, so the text ends
//! for it where it has looked at too many.

use std::cell::Cell;
use std::rc::Rc;
use std::str::Chars;

/// As many words as it may keep take some 30 MiB: each has one mark besides it,
/// or a pair of quotes. Five thousand upstreams in JSON have fewer.
const WEIGHT_MAX: u32 = 200_000;

/// The text.
pub(super) struct BoundedText<'a> {
    text: Chars<'a>,
    lookahead: Lookahead,
}

/// What the parser has looked at since it last gave something.
#[derive(Debug, Clone, Default)]
pub(super) struct Lookahead(Rc<Cell<u32>>);

impl Lookahead {
    /// The parser gave something.
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
