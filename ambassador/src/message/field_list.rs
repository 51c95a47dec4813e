//! Fields in a form that belongs to no version of HTTP: what is encoded before it is
//! known when it goes, or over which connection.

/// Appends fields to a list in bytes, for [`fields`] to read.
///
/// Each field is the length of its name in two bytes, that of its value in four, name,
/// value. The highest bit of the second length says that it is a secret.
#[derive(Debug)]
pub(crate) struct FieldList<'a>(pub &'a mut Vec<u8>);

/// Whether a hop may put a field into a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrecy {
    /// It may.
    Open,
    /// It may not (RFC 7541 section 6.2.3).
    Secret,
}

/// Set in the length of a secret value.
const SECRET: u32 = 1 << 31;

/// Bytes before each field.
const LENGTHS: usize = 6;

/// What a line has besides name and value.
const LINE_OVERHEAD: usize = b": \r\n".len();

impl FieldList<'_> {
    /// Appends a field. A head has far less than fits the lengths.
    #[inline]
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_as(Secrecy::Open, name, value);
    }

    /// The same of one that may be a secret.
    #[inline]
    pub(crate) fn push_as(&mut self, secrecy: Secrecy, name: &[u8], value: &[u8]) {
        let (Ok(name_length), Ok(value_length)) = (name.len().try_into(), value.len().try_into())
        else {
            return;
        };
        let (name_length, mut value_length): (u16, u32) = (name_length, value_length);
        if value_length >= SECRET {
            return;
        }
        if secrecy == Secrecy::Secret {
            value_length |= SECRET;
        }
        let ([a, b], [c, d, e, f]) = (name_length.to_le_bytes(), value_length.to_le_bytes());
        self.0.reserve(LENGTHS + name.len() + value.len());
        self.0.extend_from_slice(&[a, b, c, d, e, f]);
        self.0.extend_from_slice(name);
        self.0.extend_from_slice(value);
    }
}

/// Names and values of a list that a [`FieldList`] made, in order.
#[inline]
pub(crate) fn fields(list: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
    lines(list).map(|(_, name, value)| (name, value))
}

/// The same, and whether each is a secret.
#[inline]
pub(crate) fn lines(list: &[u8]) -> impl Iterator<Item = (Secrecy, &[u8], &[u8])> + Clone {
    Lines(list)
}

/// How many bytes the fields of a list have as lines: `name: value`, CR and LF.
#[inline]
pub(crate) fn line_bytes(list: &[u8]) -> u64 {
    let lines = fields(list).map(|(name, value)| name.len() + value.len() + LINE_OVERHEAD);
    lines.sum::<usize>() as u64
}

#[derive(Clone)]
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = (Secrecy, &'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (lengths, rest) = self.0.split_first_chunk::<LENGTHS>()?;
        let [a, b, c, d, e, f] = *lengths;
        let name = usize::from(u16::from_le_bytes([a, b]));
        let value = u32::from_le_bytes([c, d, e, f]);
        let secrecy = match value & SECRET {
            0 => Secrecy::Open,
            _ => Secrecy::Secret,
        };
        let value = (value & !SECRET) as usize;
        let (name, rest) = rest.split_at_checked(name)?;
        let (value, rest) = rest.split_at_checked(value)?;
        self.0 = rest;
        Some((secrecy, name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_comes_out() {
        let long = vec![b'v'; 70_000];
        let all: [(&[u8], &[u8]); 4] = [
            (b":path", b"/"),
            (b"a", b""),
            (b"long", &long),
            (b"", b"odd: \r\n"),
        ];
        let mut bytes = Vec::new();
        let mut list = FieldList(&mut bytes);
        for (name, value) in all {
            list.push(name, value);
        }
        assert!(fields(&bytes).eq(all));
        assert_eq!(fields(&bytes[..bytes.len() - 1]).count(), 3);
        assert_eq!(fields(b"").count(), 0);
    }

    #[test]
    fn lines_have_more_bytes_than_names_and_values() {
        let mut bytes = Vec::new();
        let mut list = FieldList(&mut bytes);
        list.push(b"a", b"bc");
        list.push_as(Secrecy::Secret, b"key", b"");
        assert_eq!(line_bytes(&bytes), b"a: bc\r\nkey: \r\n".len() as u64);
        assert_eq!(line_bytes(b""), 0);
    }

    #[test]
    fn a_secret_stays_one() {
        let mut bytes = Vec::new();
        let mut list = FieldList(&mut bytes);
        list.push_as(Secrecy::Secret, b"key", b"k");
        list.push(b"a", b"b");
        let all: [(Secrecy, &[u8], &[u8]); 2] =
            [(Secrecy::Secret, b"key", b"k"), (Secrecy::Open, b"a", b"b")];
        assert!(lines(&bytes).eq(all));
    }
}
