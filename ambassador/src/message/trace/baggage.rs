//! What of the `baggage` of a request goes on (W3C Baggage, section 3.3.2): all of
//! it, up to more than anyone has to take.

const BYTES_MAX: usize = 8_192;
const MEMBERS_MAX: usize = 180;

/// How much more may go on.
#[derive(Debug)]
pub(crate) struct BaggageRoom {
    bytes: usize,
    members: usize,
}

impl Default for BaggageRoom {
    fn default() -> Self {
        Self {
            bytes: BYTES_MAX,
            members: MEMBERS_MAX,
        }
    }
}

impl BaggageRoom {
    /// The members of a field that fit; those behind the first that does not
    /// stay behind as well.
    pub(crate) fn take<'a>(&mut self, value: &'a [u8]) -> &'a [u8] {
        let mut end = 0;
        for member in value.split(|byte| *byte == b',') {
            let next = end + member.len() + usize::from(end > 0);
            if next > self.bytes || self.members == 0 {
                (self.bytes, self.members) = (0, 0);
                return &value[..end];
            }
            self.members -= 1;
            end = next;
        }
        // The comma that joins it to the next.
        self.bytes = self.bytes.saturating_sub(end + 1);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_goes_on_as_it_is() {
        let mut room = BaggageRoom::default();
        for value in ["a=1 , b=2;meta", "", ",,", "c=%20"] {
            assert_eq!(room.take(value.as_bytes()), value.as_bytes());
        }
    }

    #[test]
    fn members_that_do_not_fit_are_left_behind_whole() {
        let mut room = BaggageRoom::default();
        let member = format!("a={}", "x".repeat(4_000 - 2));
        assert_eq!(room.take(member.as_bytes()).len(), 4_000);
        let two = format!("{member},{member}");
        assert_eq!(room.take(two.as_bytes()), member.as_bytes());
        assert_eq!(room.take(b"b=2"), b"");

        let mut room = BaggageRoom::default();
        let many = vec!["a=1"; 181].join(",");
        assert_eq!(room.take(many.as_bytes()).len(), 180 * 4 - 1);
        assert_eq!(room.take(b"b=2"), b"");
    }
}
