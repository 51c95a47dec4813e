//! HPACK (RFC 7541): literals, as a test puts them together, and a decoder.

use std::collections::VecDeque;
use std::io;

/// A name and a value.
pub type Field<'a> = (&'a str, &'a str);

/// What the static table has (RFC 7541, appendix A).
const STATIC: [Field<'static>; 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// How many bits the Huffman code of each octet has, and at last that of the end
/// (RFC 7541, appendix B). The code is canonical: codes of a length go up by one.
const HUFFMAN_BITS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// The longest of them.
const LONGEST: u8 = 30;

/// How a literal is to be kept (RFC 7541, section 6.2).
#[derive(Debug, Clone, Copy)]
pub enum Literal {
    /// In the dynamic table.
    Indexed,
    /// Not at all.
    Unindexed,
    /// Nowhere, by no one who passes it on.
    Never,
}

/// These fields as literals without indexing, which leave a decoder as it was.
pub fn block(fields: &[Field<'_>]) -> Vec<u8> {
    let fields = fields.iter();
    let literals =
        fields.map(|(name, value)| literal(Literal::Unindexed, &text(name), &text(value)));
    literals.collect::<Vec<_>>().concat()
}

/// A field of the tables.
pub fn indexed(index: usize) -> Vec<u8> {
    number(0x80, 7, index)
}

/// A literal with a name of its own; name and value are strings with their lengths.
pub fn literal(kept: Literal, name: &[u8], value: &[u8]) -> Vec<u8> {
    [&literal_of(kept, 0), name, value].concat()
}

/// The start of a literal whose name is that of a field of the tables.
pub fn literal_of(kept: Literal, index: usize) -> Vec<u8> {
    match kept {
        Literal::Indexed => number(0x40, 6, index),
        Literal::Unindexed => number(0x00, 4, index),
        Literal::Never => number(0x10, 4, index),
    }
}

/// A new size of the dynamic table.
pub fn table_size(size: usize) -> Vec<u8> {
    number(0x20, 5, size)
}

/// A string as it is, with its length.
pub fn text(text: &str) -> Vec<u8> {
    [&number(0, 7, text.len())[..], text.as_bytes()].concat()
}

/// A string in Huffman's code, with its length.
pub fn huffman(text: &str) -> Vec<u8> {
    let codes = huffman_codes();
    let mut bits = Vec::new();
    for octet in text.bytes() {
        let (length, code) = codes[usize::from(octet)];
        bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
    }
    // The longest code is all ones: its start fills the last octet.
    bits.resize(bits.len().next_multiple_of(8), true);
    let octets = bits.chunks(8).map(|bits| {
        let bits = bits.iter();
        bits.fold(0, |octet, bit| octet << 1 | u8::from(*bit))
    });
    let octets: Vec<u8> = octets.collect();
    [number(0x80, 7, octets.len()), octets].concat()
}

/// A number behind the bits of `start` (RFC 7541, section 5.1).
pub fn number(start: u8, prefix: u32, value: usize) -> Vec<u8> {
    let full = (1 << prefix) - 1;
    if value < full {
        return vec![start | u8::try_from(value).expect("below eight bits")];
    }
    let mut octets = vec![start | u8::try_from(full).expect("eight bits at most")];
    let mut rest = value - full;
    while rest >= 0x80 {
        octets.push(u8::try_from(rest & 0x7f).expect("seven bits") | 0x80);
        rest >>= 7;
    }
    octets.push(u8::try_from(rest).expect("below eight bits"));
    octets
}

/// How long each code is, and the code.
fn huffman_codes() -> Vec<(u8, u32)> {
    let mut order: Vec<usize> = (0..HUFFMAN_BITS.len()).collect();
    order.sort_by_key(|symbol| (HUFFMAN_BITS[*symbol], *symbol));
    let mut codes = vec![(0, 0); HUFFMAN_BITS.len()];
    let (mut code, mut length) = (0_u32, HUFFMAN_BITS[order[0]]);
    for symbol in order {
        code <<= HUFFMAN_BITS[symbol] - length;
        length = HUFFMAN_BITS[symbol];
        codes[symbol] = (length, code);
        code += 1;
    }
    codes
}

/// Reads the field blocks of one direction of a connection, in their order.
#[derive(Debug)]
pub struct Decoder {
    /// The newest first.
    table: VecDeque<(String, String)>,
    size_max: usize,
    codes: Vec<(u8, u32)>,
    /// Names in the newest block that no hop may put into a table.
    never: Vec<String>,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            table: VecDeque::new(),
            size_max: 4096,
            codes: huffman_codes(),
            never: Vec::new(),
        }
    }
}

impl Decoder {
    /// The fields of a block; an error where it is none.
    pub fn decode(&mut self, block: &[u8]) -> io::Result<Vec<(String, String)>> {
        let mut rest = block;
        let mut fields = Vec::new();
        self.never.clear();
        while let Some(first) = rest.first() {
            match first {
                0x80.. => {
                    let index = take_number(&mut rest, 7)?;
                    fields.push(self.entry(index)?);
                }
                0x40.. => {
                    let field = self.literal(&mut rest, 6)?;
                    self.table.push_front(field.clone());
                    self.evict();
                    fields.push(field);
                }
                0x20.. => {
                    self.size_max = take_number(&mut rest, 5)?;
                    self.evict();
                }
                kept => {
                    let is_never = kept & 0x10 != 0;
                    let field = self.literal(&mut rest, 4)?;
                    self.never.extend(is_never.then(|| field.0.clone()));
                    fields.push(field);
                }
            }
        }
        Ok(fields)
    }

    /// The names in the newest block that no hop may put into a table.
    pub fn never(&self) -> &[String] {
        &self.never
    }

    fn entry(&self, index: usize) -> io::Result<(String, String)> {
        let index = index.checked_sub(1).ok_or(io::ErrorKind::InvalidData)?;
        if let Some((name, value)) = STATIC.get(index) {
            return Ok(((*name).to_owned(), (*value).to_owned()));
        }
        let entry = self.table.get(index - STATIC.len());
        Ok(entry.ok_or(io::ErrorKind::InvalidData)?.clone())
    }

    fn literal(&self, rest: &mut &[u8], prefix: u32) -> io::Result<(String, String)> {
        let name = match take_number(rest, prefix)? {
            0 => self.string(rest)?,
            index => self.entry(index)?.0,
        };
        Ok((name, self.string(rest)?))
    }

    fn string(&self, rest: &mut &[u8]) -> io::Result<String> {
        let is_huffman = rest.first().is_some_and(|octet| octet & 0x80 != 0);
        let length = take_number(rest, 7)?;
        let (octets, after) = rest
            .split_at_checked(length)
            .ok_or(io::ErrorKind::InvalidData)?;
        *rest = after;
        let octets = match is_huffman {
            true => self.huffman_text(octets)?,
            false => octets.to_vec(),
        };
        String::from_utf8(octets).map_err(io::Error::other)
    }

    fn huffman_text(&self, octets: &[u8]) -> io::Result<Vec<u8>> {
        let (mut length, mut code) = (0, 0);
        let mut found = Vec::new();
        for bit in (0..octets.len() * 8).map(|bit| octets[bit / 8] >> (7 - bit % 8) & 1) {
            (length, code) = (length + 1, code << 1 | u32::from(bit));
            if length > LONGEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if let Some(symbol) = self.codes.iter().position(|it| *it == (length, code)) {
                let octet = u8::try_from(symbol).map_err(|_| io::ErrorKind::InvalidData)?;
                found.push(octet);
                (length, code) = (0, 0);
            }
        }
        match length < 8 && code == (1 << length) - 1 {
            true => Ok(found),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn evict(&mut self) {
        let size = |field: &(String, String)| field.0.len() + field.1.len() + 32;
        while self.table.iter().map(size).sum::<usize>() > self.size_max {
            self.table.pop_back();
        }
    }
}

fn take_number(rest: &mut &[u8], prefix: u32) -> io::Result<usize> {
    let mut next = || {
        let (first, after) = rest.split_first().ok_or(io::ErrorKind::InvalidData)?;
        *rest = after;
        io::Result::Ok(usize::from(*first))
    };
    let full = (1 << prefix) - 1;
    let mut value = next()? & full;
    if value < full {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21, 28] {
        let octet = next()?;
        value += (octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}
