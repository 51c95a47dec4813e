//! What `Keep-Alive` says of the connection (RFC 2068 section 19.7.1.1):
//! `timeout=5, max=100`.

use std::time::Duration;

/// How long a connection may be used again, as its other end says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeepAlive {
    /// Seconds for which the other end waits for the next request; `None`: it
    /// does not say.
    timeout: Option<u32>,
    /// No other request is taken: `max=0`.
    is_last: bool,
}

impl KeepAlive {
    /// Reads the value of one field more.
    pub fn read(&mut self, value: &[u8]) {
        for parameter in value.split(|byte| *byte == b',') {
            let Some(equals) = parameter.iter().position(|byte| *byte == b'=') else {
                continue;
            };
            let (name, number) = (parameter[..equals].trim_ascii(), &parameter[equals + 1..]);
            let number = number.trim_ascii();
            let number = number.strip_prefix(b"\"").unwrap_or(number);
            let number = number.strip_suffix(b"\"").unwrap_or(number);
            // What cannot be read says nothing.
            let number = std::str::from_utf8(number).ok();
            let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) else {
                continue;
            };
            if name.eq_ignore_ascii_case(b"timeout") {
                self.timeout = Some(self.timeout.map_or(number, |known| known.min(number)));
            } else if name.eq_ignore_ascii_case(b"max") {
                self.is_last |= number == 0;
            }
        }
    }

    /// Whether another request may follow at all.
    pub fn allows_another(self) -> bool {
        !self.is_last && self.timeout != Some(0)
    }

    /// For how long one may be sent after the response. The other end began to
    /// count before it came here, and the request needs time to get there: a
    /// second less than it says, or half of it where that is more.
    pub fn idle_limit(self) -> Option<Duration> {
        let timeout = Duration::from_secs(self.timeout?.into());
        let margin = Duration::from_secs(1).min(timeout / 2);
        Some(timeout - margin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> (bool, Option<u64>) {
        let mut keep_alive = KeepAlive::default();
        keep_alive.read(value.as_bytes());
        let limit = keep_alive
            .idle_limit()
            .map(|limit| limit.as_millis() as u64);
        (keep_alive.allows_another(), limit)
    }

    #[test]
    fn the_timeout_is_used_with_a_margin() {
        for (value, expected) in [
            ("timeout=60", (true, Some(59_000))),
            ("timeout=5, max=100", (true, Some(4_000))),
            ("max=3,Timeout = \"2\"", (true, Some(1_000))),
            ("timeout=1", (true, Some(500))),
            ("timeout=0", (false, Some(0))),
            ("timeout=5, max=0", (false, Some(4_000))),
            ("timeout=9, timeout=4", (true, Some(3_000))),
            ("300", (true, None)),
            ("timeout=, max=", (true, None)),
            ("timeout=-1, max=x", (true, None)),
            ("timeout=99999999999", (true, None)),
            ("", (true, None)),
        ] {
            assert_eq!(read(value), expected, "{value}");
        }
    }
}
