//! A `tracestate` (W3C Trace Context level 2, section 3.3): what tracing systems
//! keep in a trace, a member for each.

/// Members at most; more make it invalid.
const MEMBERS_MAX: usize = 32;
/// What is written at most, which is what everyone has to let pass.
pub(super) const BYTES_MAX: usize = 512;
/// A longer member goes first where not all fit.
const LONG_MEMBER_BYTES: usize = 128;
const KEY_BYTES_MAX: usize = 256;
const VALUE_BYTES_MAX: usize = 256;

/// The members of a valid one.
#[derive(Debug)]
pub(super) struct TraceState<'a> {
    members: [&'a [u8]; MEMBERS_MAX],
    count: usize,
}

impl<'a> TraceState<'a> {
    /// Reads what the values of all its fields say together; `None`: invalid,
    /// or nothing. Of members with the same key the first is the newest, and
    /// stays.
    pub(super) fn read(values: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut state = Self {
            members: [b""; MEMBERS_MAX],
            count: 0,
        };
        let members = values.flat_map(|value| value.split(|byte| *byte == b','));
        for member in members.map(<[u8]>::trim_ascii) {
            if member.is_empty() {
                continue;
            }
            let key = valid_key(member)?;
            if state.members().any(|known| key_of(known) == Some(key)) {
                continue;
            }
            *state.members.get_mut(state.count)? = member;
            state.count += 1;
        }
        (state.count > 0).then_some(state)
    }

    /// Leaves members out until it is short enough: long ones first, then
    /// those at the end.
    pub(super) fn bounded(mut self) -> Self {
        while self.bytes() > BYTES_MAX {
            let long = self.members().rposition(|m| m.len() > LONG_MEMBER_BYTES);
            let leaves = long.unwrap_or(self.count - 1);
            self.members[leaves..self.count].rotate_left(1);
            self.count -= 1;
        }
        self
    }

    pub(super) fn members(&self) -> impl DoubleEndedIterator<Item = &'a [u8]> + ExactSizeIterator {
        self.members[..self.count].iter().copied()
    }

    /// With a comma between members.
    fn bytes(&self) -> usize {
        let members: usize = self.members().map(<[u8]>::len).sum();
        members + self.count.saturating_sub(1)
    }
}

fn key_of(member: &[u8]) -> Option<&[u8]> {
    let end = member.iter().position(|byte| *byte == b'=')?;
    Some(&member[..end])
}

/// The key of a member; `None`: it is malformed.
fn valid_key(member: &[u8]) -> Option<&[u8]> {
    let key = key_of(member)?;
    let value = &member[key.len() + 1..];
    let begins = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let goes_on = |byte: &u8| begins(*byte) || b"_-*/@".contains(byte);
    let in_value = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'=';
    let sound = (1..=KEY_BYTES_MAX).contains(&key.len())
        && begins(key[0])
        && key.iter().all(goes_on)
        && (1..=VALUE_BYTES_MAX).contains(&value.len())
        && value.iter().all(in_value);
    sound.then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written of these fields, `None` where they are dropped.
    fn written(fields: &[&str]) -> Option<String> {
        let state = TraceState::read(fields.iter().map(|field| field.as_bytes()))?;
        let state = state.bounded();
        let members = state.members().map(|m| str::from_utf8(m).unwrap());
        Some(members.collect::<Vec<_>>().join(","))
    }

    #[test]
    fn members_of_all_fields_stand_together_in_order() {
        let longest = format!("{}=1", "z".repeat(256));
        let widest = format!("k={}", "v".repeat(256));
        for (fields, expected) in [
            (&["a=1"][..], "a=1"),
            (&["a=1,b=2", "c=3,d=4", "e=5"], "a=1,b=2,c=3,d=4,e=5"),
            (&["a=1 \t , \t b=2,\t \tc=3", " d=4\t"], "a=1,b=2,c=3,d=4"),
            (&["a=1", "", " , ,", "b=2"], "a=1,b=2"),
            (&["a=1,b=2,a=3", "b=4"], "a=1,b=2"),
            (&["az09_-*/@=x"], "az09_-*/@=x"),
            (&["9tenant@sys@tem= !~+-<>x"], "9tenant@sys@tem= !~+-<>x"),
            (&[&longest], &longest),
            (&[&widest], &widest),
        ] {
            assert_eq!(written(fields).as_deref(), Some(expected), "{fields:?}");
        }
    }

    #[test]
    fn one_malformed_member_drops_all() {
        let long_key = format!("{}=1", "z".repeat(257));
        let long_value = format!("k={}", "v".repeat(257));
        for field in [
            "",
            " ",
            ",",
            "b",
            "b=",
            "=1",
            "b=1=2",
            "B=1",
            "b =1",
            "b.c=1",
            "@b=1",
            "_b=1",
            "-b=1",
            "b=\u{e9}",
            "b=\t1",
            "b=1;c=\x7f",
            &long_key,
            &long_value,
        ] {
            assert_eq!(written(&[field]), None, "{field}");
            let beside = written(&["a=1", field]);
            let is_empty = field.trim_matches([' ', ',']).is_empty();
            assert_eq!(beside.is_some(), is_empty, "{field}");
        }
    }

    #[test]
    fn there_are_32_members_at_most() {
        let members = |count| (0..count).map(|n| format!("k{n}=1")).collect::<Vec<_>>();
        let all = members(32).join(",");
        assert_eq!(written(&[&all]).as_deref(), Some(&*all));
        assert_eq!(written(&[&members(33).join(",")]), None);
        assert_eq!(written(&[&all, "k32=1"]), None);
    }

    #[test]
    fn what_is_too_long_loses_its_long_members_first_and_then_its_last() {
        let member = |key: &str, bytes: usize| format!("{key}={}", "v".repeat(bytes - 2));
        let (a, b, c) = (member("a", 128), member("b", 129), member("c", 200));
        let (d, e, f) = (member("d", 128), member("e", 128), member("f", 128));
        let fits = [&*a, &*b, &*c].join(",");
        assert_eq!(written(&[&fits]).as_deref(), Some(&*fits));
        let exact = [&*a, &*d, &*e, &member("g", 125)].join(",");
        assert_eq!(exact.len(), BYTES_MAX);
        assert_eq!(written(&[&exact]).as_deref(), Some(&*exact));
        for (fields, left) in [
            (vec![&a, &b, &c, &d], vec![&a, &b, &d]),
            (vec![&a, &b, &c, &d, &e, &f], vec![&a, &d, &e]),
        ] {
            let field = fields
                .iter()
                .map(|m| m.as_str())
                .collect::<Vec<_>>()
                .join(",");
            let left = left
                .iter()
                .map(|m| m.as_str())
                .collect::<Vec<_>>()
                .join(",");
            assert_eq!(written(&[&field]).as_deref(), Some(&*left));
        }
    }
}
