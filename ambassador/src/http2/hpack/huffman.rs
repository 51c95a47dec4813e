//! The Huffman code of strings (RFC 7541 section 5.2 and appendix B).
//!
//! The code is canonical: codes of a length follow each other in the order of
//! their symbols, behind all shorter ones. So the lengths say everything.

use crate::http2::hpack::error::CompressionError;

/// Bits of the code of each byte, and of the end of the string.
pub(super) const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, //
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, //
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, //
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, //
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, //
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, //
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, //
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, //
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, //
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, //
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, //
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, //
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, //
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, //
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, //
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, //
    30,
];

const SYMBOLS: usize = 257;

/// The symbol that says that a string ends. Only its first bits may come.
const END_OF_STRING: u16 = 256;

const LENGTH_MAX: usize = 30;

/// Bits of the shortest code.
const LENGTH_MIN: usize = 5;

/// Bits that are looked up at once: those of all codes of letters, digits and
/// common marks.
const SHORT_BITS: usize = 10;

/// Appends the decoded form of the first `length` of `bytes`, of which there are
/// as many at least, to `out`. More of them may be read, and mean nothing.
pub(super) fn decode(
    bytes: &[u8],
    length: usize,
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    let start = out.len();
    out.resize(start + 8 * length / LENGTH_MIN, 0);
    let mut window = Window {
        bytes,
        bits: 0,
        count: 0,
    };
    let mut left = 8 * length;
    let mut written = start;
    while left > 0 {
        let (symbol, length) = window.next();
        if length > left {
            break;
        }
        if symbol == END_OF_STRING {
            return Err(CompressionError::Huffman);
        }
        out[written] = symbol as u8;
        written += 1;
        left -= length;
        window.skip(length);
    }
    out.truncate(written);
    // The rest is the beginning of the end of the string: ones.
    match left < 8 && window.bits.leading_ones() as usize >= left {
        true => Ok(()),
        false => Err(CompressionError::Huffman),
    }
}

/// The next bits of a string.
struct Window<'a> {
    /// What has not been taken into the bits.
    bytes: &'a [u8],
    /// The next bit is the highest.
    bits: u64,
    /// How many of them are there.
    count: usize,
}

impl Window<'_> {
    /// The next symbol, and how many bits it has.
    #[inline]
    fn next(&mut self) -> (u16, usize) {
        if self.count < LENGTH_MAX {
            self.fill();
        }
        match SHORT[(self.bits >> (64 - SHORT_BITS)) as usize] {
            0 => long((self.bits >> 32) as u32),
            entry => (entry >> 4, usize::from(entry & 0xf)),
        }
    }

    #[inline]
    fn skip(&mut self, count: usize) {
        self.bits <<= count;
        self.count -= count;
    }

    /// Has at least 56 bits there; behind the last byte are zeros.
    #[inline]
    fn fill(&mut self) {
        match self.bytes.first_chunk() {
            // What does not fit whole is there already, and comes again.
            Some(word) => {
                self.bits |= u64::from_be_bytes(*word) >> self.count;
                let taken = (63 - self.count) / 8;
                self.bytes = &self.bytes[taken..];
                self.count += 8 * taken;
            }
            None => self.fill_bytewise(),
        }
    }

    fn fill_bytewise(&mut self) {
        while self.count <= 56 {
            let (byte, rest) = self.bytes.split_first().unwrap_or((&0, &[]));
            self.bits |= u64::from(*byte) << (56 - self.count);
            self.bytes = rest;
            self.count += 8;
        }
    }
}

/// The symbol whose code, of more than [`SHORT_BITS`], is in front of `bits`,
/// and its length.
#[cold]
fn long(bits: u32) -> (u16, usize) {
    let mut length = SHORT_BITS + 1;
    while length < LENGTH_MAX && u64::from(bits) >= CODES.end[length] {
        length += 1;
    }
    let behind = (u64::from(bits) - CODES.start[length]) >> (32 - length);
    (
        CODES.symbols[usize::from(CODES.before[length]) + behind as usize],
        length,
    )
}

/// The code, by the lengths of codes.
struct Codes {
    /// The symbols in the order of their codes.
    symbols: [u16; SYMBOLS],
    /// How many symbols have shorter codes.
    before: [u16; LENGTH_MAX + 1],
    /// The first code of a length, at the top of 32 bits.
    start: [u64; LENGTH_MAX + 1],
    /// What the code behind the last would be, likewise.
    end: [u64; LENGTH_MAX + 1],
}

static CODES: Codes = CODES_OF_LENGTHS;

const CODES_OF_LENGTHS: Codes = {
    let mut codes = Codes {
        symbols: [0; SYMBOLS],
        before: [0; LENGTH_MAX + 1],
        start: [0; LENGTH_MAX + 1],
        end: [0; LENGTH_MAX + 1],
    };
    let (mut count, mut length) = (0, 1);
    while length <= LENGTH_MAX {
        codes.before[length] = count as u16;
        codes.start[length] = codes.end[length - 1];
        codes.end[length] = codes.start[length];
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                codes.symbols[count] = symbol as u16;
                codes.end[length] += 1 << (32 - length);
                count += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    // Every sequence of bits is one of codes.
    assert!(codes.end[LENGTH_MAX] == 1 << 32);
    codes
};

/// For the next bits, the symbol in the upper twelve and the length of its code
/// in the lower four; 0 where the code is longer.
static SHORT: [u16; 1 << SHORT_BITS] = {
    let mut table = [0; 1 << SHORT_BITS];
    let (mut at, mut number) = (0, 0);
    while LENGTHS[CODES_OF_LENGTHS.symbols[number] as usize] as usize <= SHORT_BITS {
        let symbol = CODES_OF_LENGTHS.symbols[number];
        let length = LENGTHS[symbol as usize] as usize;
        let end = at + (1 << (SHORT_BITS - length));
        while at < end {
            table[at] = symbol << 4 | length as u16;
            at += 1;
        }
        number += 1;
    }
    table
};

#[cfg(test)]
mod tests;
