//! A set of request methods.

use crate::message::Method;

/// Methods as the file names them; case matters (RFC 9110 section 9.1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Methods {
    standard: u16,
    others: Vec<Box<str>>,
}

impl Methods {
    /// A set of these.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut set = Self::default();
        for name in names {
            match Method::parse(name.as_bytes()) {
                Method::Other => set.others.push(name.into()),
                method => set.standard |= 1 << method as u16,
            }
        }
        set
    }

    /// Whether the method is in the set; `name` is the method as it was sent.
    pub fn contains(&self, method: Method, name: &[u8]) -> bool {
        match method {
            Method::Other => self.others.iter().any(|other| other.as_bytes() == name),
            method => self.standard & 1 << method as u16 != 0,
        }
    }

    /// The names, standard ones first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let standard = Method::STANDARD.iter();
        standard
            .filter(|method| self.contains(**method, b""))
            .map(|method| method.as_str())
            .chain(self.others.iter().map(|name| &**name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_methods_and_others() {
        let set = Methods::of(["GET", "PURGE", "DELETE"]);
        assert!(set.contains(Method::Get, b"GET"));
        assert!(set.contains(Method::Other, b"PURGE"));
        assert!(!set.contains(Method::Other, b"purge"));
        assert!(!set.contains(Method::Post, b"POST"));
        let names: Vec<_> = set.names().collect();
        assert_eq!(names, ["GET", "DELETE", "PURGE"]);
    }
}
