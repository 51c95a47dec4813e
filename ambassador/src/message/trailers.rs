//! Which trailer fields of a body go on.

use crate::message::fields::kind_of;

/// Whether a field has no meaning on the way. Those that have one belong into
/// the head, where it was looked for: a recipient that merges trailers into the
/// head would see another request than was decided on.
pub(crate) fn may_trail(name: &[u8]) -> bool {
    kind_of(name).is_end_to_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_on_the_way_may_not_trail() {
        for name in [
            "Proxy-Authorization",
            "authorization",
            "X-Upstream-Host",
            "traceparent",
            "b3",
            "baggage",
            "grpc-timeout",
            "keep-alive",
            "proxy-connection",
        ] {
            assert!(!may_trail(name.as_bytes()), "{name}");
        }
        for name in ["grpc-status", "Server-Timing", "X-Checksum", "digest"] {
            assert!(may_trail(name.as_bytes()), "{name}");
        }
    }
}
