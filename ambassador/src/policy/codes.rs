//! A set of codes with which gRPC calls end.

use crate::message::grpc::Code;

/// Codes, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Codes(u32);

impl Codes {
    /// A set of these.
    pub const fn of(codes: &[Code]) -> Self {
        let (mut set, mut at) = (0, 0);
        while at < codes.len() {
            set |= 1 << codes[at] as u32;
            at += 1;
        }
        Self(set)
    }

    /// Adds one.
    pub fn with(self, code: Code) -> Self {
        Self(self.0 | 1 << code as u32)
    }

    /// Those of both sets.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the code is in the set.
    pub fn contains(self, code: Code) -> bool {
        self.0 & 1 << code as u32 != 0
    }

    /// Those that are in it.
    pub fn iter(self) -> impl Iterator<Item = Code> {
        let all = Code::ALL.iter().copied();
        all.filter(move |code| self.contains(*code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_in_or_not() {
        let set = Codes::of(&[Code::Ok, Code::Unavailable]).with(Code::Unauthenticated);
        let listed: Vec<_> = set.iter().collect();
        assert_eq!(listed, [Code::Ok, Code::Unavailable, Code::Unauthenticated]);
        assert!(!set.contains(Code::Cancelled));
        assert_eq!(Codes::default().iter().count(), 0);
    }
}
