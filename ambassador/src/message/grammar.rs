//! What names, values and numbers of a message are made of, in every version of
//! HTTP (RFC 9110 section 5).

/// Digits of a Content-Length at most, zeros in front included: any such number
/// is below 2^63, so that it overflows no recipient's integer.
const LENGTH_DIGITS_MAX: usize = 18;

/// Whether a byte may stand in a token.
pub(crate) const fn is_token(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    ) || byte.is_ascii_alphanumeric()
}

/// The same for every byte: names are most of what is walked over bytewise.
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = is_token(byte as u8);
        byte += 1;
    }
    table
};

/// Bytes up to the first that may not stand in a token.
#[inline(always)]
pub(crate) fn count_token(bytes: &[u8]) -> usize {
    count_while(bytes, |byte| TOKEN[usize::from(byte)])
}

/// Whether all bytes are visible, those above ASCII too.
pub(crate) fn is_visible(bytes: &[u8]) -> bool {
    count_printable(bytes, b'!') == bytes.len()
}

/// Whether all bytes are visible, spaces or tabs, those above ASCII too: a field
/// value with white space around it (RFC 9110 section 5.5).
pub(crate) fn is_field_text(bytes: &[u8]) -> bool {
    // Few have tabs. The last eight are looked at together, though some a second time.
    if let Some(last) = bytes.last_chunk() {
        let (words, _) = bytes.as_chunks();
        let last = stops(last, b' ');
        if words.iter().fold(last, |all, word| all | stops(word, b' ')) == 0 {
            return true;
        }
    }
    let mut rest = bytes;
    loop {
        match &rest[count_printable(rest, b' ')..] {
            [] => return true,
            [b'\t', behind @ ..] => rest = behind,
            _ => return false,
        }
    }
}

/// Bytes up to the first that is not wanted.
#[inline(always)]
fn count_while(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    count(bytes, &wanted, |word| {
        word.iter().position(|byte| !wanted(*byte))
    })
}

/// Bytes up to the first that is below `least` or DEL; `least` is at most 128.
#[inline(always)]
pub(crate) fn count_printable(bytes: &[u8], least: u8) -> usize {
    let wanted = |byte| byte >= least && byte != DEL;
    count(bytes, wanted, |word| {
        let stops = stops(word, least);
        (stops != 0).then(|| stops.trailing_zeros() as usize / 8)
    })
}

const DEL: u8 = 0x7f;

/// Marks the first byte of a word that is below `least` or DEL, and perhaps others
/// behind it; 0: there is none.
///
/// The high bit of a byte is set where subtracting borrowed: the byte was smaller. A
/// borrow can spoil bytes above the first, never below.
#[inline(always)]
fn stops(word: &[u8; 8], least: u8) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let below = |word: u64, least: u8| word.wrapping_sub(EACH * u64::from(least)) & !word;
    let word = u64::from_le_bytes(*word);
    let is_del = below(word ^ (EACH * u64::from(DEL)), 1);
    (below(word, least) | is_del) & (EACH << 7)
}

/// Bytes up to the first that is not wanted; `first_unwanted` looks for it in
/// eight at a time.
#[inline(always)]
fn count(
    bytes: &[u8],
    wanted: impl Fn(u8) -> bool,
    first_unwanted: impl Fn(&[u8; 8]) -> Option<usize>,
) -> usize {
    let (words, rest) = bytes.as_chunks();
    for (at, word) in words.iter().enumerate() {
        if let Some(within) = first_unwanted(word) {
            return 8 * at + within;
        }
    }
    let within = rest.iter().position(|byte| !wanted(*byte));
    8 * words.len() + within.unwrap_or(rest.len())
}

/// Digits and nothing else, too few to overflow.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if !(1..=LENGTH_DIGITS_MAX).contains(&digits.len()) {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'9' => Some(10 * number + u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_of_tokens_is_that_of_the_grammar() {
        for byte in 0..=u8::MAX {
            let is_mark = b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(is_token(byte), byte.is_ascii_alphanumeric() || is_mark);
        }
    }

    proptest! {
        #[test]
        fn eight_at_a_time_is_as_one_by_one(
            bytes in prop::collection::vec(
                prop_oneof![8 => b' '..=b'~', 1 => any::<u8>()],
                0..40,
            ),
            least in prop::sample::select(vec![b' ', b'!']),
        ) {
            let wanted = |byte: u8| byte >= least && byte != 0x7f;
            let expected = bytes.iter().position(|byte| !wanted(*byte));
            let expected = expected.unwrap_or(bytes.len());
            prop_assert_eq!(count_printable(&bytes, least), expected);
            prop_assert_eq!(count_while(&bytes, wanted), expected);
            let is_text = bytes.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..));
            prop_assert_eq!(is_field_text(&bytes), is_text);
        }
    }
}
