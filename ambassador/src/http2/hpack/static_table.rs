//! The fields that every peer knows (RFC 7541 appendix A).

use crate::http2::block::Line;
use crate::http2::hpack::is_same;

/// How many there are.
const COUNT: usize = 61;

/// Indexes from here on are those of the dynamic table.
pub(super) const END: usize = COUNT + 1;

/// The field with this index; 0 is none.
#[inline]
pub(super) const fn line(index: usize) -> Option<Line<'static>> {
    match index {
        1..END => Some(LINES[index - 1]),
        _ => None,
    }
}

/// The index of the first field of this name, which is in lower case.
#[inline]
pub(super) fn find_name(name: &[u8]) -> Option<usize> {
    let index = usize::from(FIRST_OF_SLOT[slot(name)?]);
    let is_it = is_same(line(index)?.name(), name);
    is_it.then_some(index)
}

/// The index of the field with this value, where `first` is the first of its
/// name.
#[inline]
pub(super) fn find_value(first: usize, value: &[u8]) -> Option<usize> {
    let count = usize::from(VALUES[first]);
    // Most names have one line, and no value in it.
    if count == 1 && LINES[first - 1].value().len() != value.len() {
        return None;
    }
    let behind = LINES[first - 1..][..count]
        .iter()
        .position(|line| is_same(line.value(), value))?;
    Some(first + behind)
}

/// The first fields of their names, by [`slot`]; 0 is none.
static FIRST_OF_SLOT: [u8; SLOTS] = {
    let mut table = [0; SLOTS];
    let mut at = COUNT;
    while at > 0 {
        let name = LINES[at - 1].name();
        let slot = slot(name).expect("a name");
        let before = table[slot];
        assert!(
            before == 0 || before as usize == at + 1 && is_one(LINES[at].name(), name),
            "two names with one slot"
        );
        table[slot] = at as u8;
        at -= 1;
    }
    table
};

const SLOTS: usize = 128;

/// A place for a name, of which no two here have the same: the factors were
/// found by trying. `None`: a name has a byte at least.
const fn slot(name: &[u8]) -> Option<usize> {
    let [first, .., last] = name else {
        return None;
    };
    Some((3 * name.len() + 54 * *first as usize + 59 * *last as usize) % SLOTS)
}

/// Whether two names are one, before the program runs.
const fn is_one(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

/// How many fields have the name of the first one.
static VALUES: [u8; END] = {
    let mut counts = [0; END];
    let mut at = 0;
    while at < COUNT {
        let mut end = at;
        while end < COUNT && is_one(LINES[at].name(), LINES[end].name()) {
            end += 1;
        }
        counts[at + 1] = (end - at) as u8;
        at += 1;
    }
    counts
};

macro_rules! lines {
    ($($name:literal $value:literal,)*) => {
        [$(Line::new(concat!($name, ": ", $value, "\r\n").as_bytes(), $name.len()),)*]
    };
}

const LINES: [Line<'static>; COUNT] = lines! {
    ":authority" "",
    ":method" "GET",
    ":method" "POST",
    ":path" "/",
    ":path" "/index.html",
    ":scheme" "http",
    ":scheme" "https",
    ":status" "200",
    ":status" "204",
    ":status" "206",
    ":status" "304",
    ":status" "400",
    ":status" "404",
    ":status" "500",
    "accept-charset" "",
    "accept-encoding" "gzip, deflate",
    "accept-language" "",
    "accept-ranges" "",
    "accept" "",
    "access-control-allow-origin" "",
    "age" "",
    "allow" "",
    "authorization" "",
    "cache-control" "",
    "content-disposition" "",
    "content-encoding" "",
    "content-language" "",
    "content-length" "",
    "content-location" "",
    "content-range" "",
    "content-type" "",
    "cookie" "",
    "date" "",
    "etag" "",
    "expect" "",
    "expires" "",
    "from" "",
    "host" "",
    "if-match" "",
    "if-modified-since" "",
    "if-none-match" "",
    "if-range" "",
    "if-unmodified-since" "",
    "last-modified" "",
    "link" "",
    "location" "",
    "max-forwards" "",
    "proxy-authenticate" "",
    "proxy-authorization" "",
    "range" "",
    "referer" "",
    "refresh" "",
    "retry-after" "",
    "server" "",
    "set-cookie" "",
    "strict-transport-security" "",
    "transfer-encoding" "",
    "user-agent" "",
    "vary" "",
    "via" "",
    "www-authenticate" "",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_found_by_its_name_and_value() {
        for index in 1..END {
            let line = line(index).expect("a field");
            let first = find_name(line.name()).expect("a name");
            assert!(first <= index);
            assert_eq!(find_value(first, line.value()), Some(index));
            assert_eq!(find_value(first, b"another"), None);
        }
        assert_eq!((line(0), line(END)), (None, None));
    }

    #[test]
    fn other_names_are_not_found() {
        for name in ["", "x", "Accept", "accepu", "x-tenant", ":protocol", "wia"] {
            assert_eq!(find_name(name.as_bytes()), None, "{name}");
        }
    }
}
