//! What is wrong with a file, where, and how it is shown.

use std::fmt;

use super::secrets;

/// Values longer than this are cut in messages.
const SHOWN_BYTES_MAX: usize = 100;

/// One thing that is wrong, or worth a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Line of the file, from 1; 0 for the file as a whole.
    pub line: usize,
    /// Path of the key, as `upstreams.payments.hosts[1]`.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
    /// The value as it stands in the file; what may be a secret is not shown.
    pub got: Option<String>,
}

/// All that is wrong with one file, in the order of its lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mistakes {
    file: String,
    list: Vec<Mistake>,
    /// How many more there are than the list has.
    more: usize,
}

impl Mistake {
    pub(super) fn of_file(what: String) -> Self {
        Self {
            line: 0,
            path: String::new(),
            what,
            got: None,
        }
    }
}

impl Mistakes {
    pub(super) fn new(file: &str, mut list: Vec<Mistake>) -> Self {
        list.sort_by_key(|mistake| mistake.line);
        let file = file.to_owned();
        let more = 0;
        Self { file, list, more }
    }

    /// The same where there are more than are told.
    pub(super) fn and_more(self, more: usize) -> Self {
        Self { more, ..self }
    }

    pub(super) fn one(file: &str, mistake: Mistake) -> Self {
        Self::new(file, vec![mistake])
    }

    /// Each of them as it is shown.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let each = self.list.iter();
        each.map(|mistake| Self::one(&self.file, mistake.clone()).to_string())
    }

    /// Each of them.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.list.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}: ", self.line)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path.escape_debug())?;
        }
        f.write_str(&self.what)?;
        if let Some(got) = &self.got {
            let got = secrets::shown(&self.path, got);
            let end = got.floor_char_boundary(SHOWN_BYTES_MAX.min(got.len()));
            let more = if end < got.len() { "..." } else { "" };
            write!(f, ", got {}{more}", got[..end].escape_debug())?;
        }
        Ok(())
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, mistake) in self.list.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            let space = if mistake.line > 0 { "" } else { " " };
            write!(f, "{}:{space}{mistake}", self.file)?;
        }
        if self.more > 0 {
            write!(f, "\n{}: and {} more mistakes", self.file, self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
