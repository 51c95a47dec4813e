//! What hosts(5) and resolv.conf(5) say.
//!
//! A workload may write its own. So what is not understood is passed over and
//! told nobody, as it may be any file; and what can be asked for has the limits
//! of the C library.

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::proto::rr::Name;
use resolv_conf::Config;

/// MAXNS of resolv.h.
const SERVERS_MAX: usize = 3;
/// MAXDNSRCH of resolv.h.
const SEARCH_MAX: usize = 6;
/// RES_MAXNDOTS of resolv.h.
const NDOTS_MAX: u32 = 15;
/// RES_MAXRETRANS of resolv.h, in seconds.
const TIMEOUT_MAX: u32 = 30;
/// RES_MAXRETRY of resolv.h.
const ATTEMPTS_MAX: u32 = 5;

/// How a name server is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvConf {
    /// Whom to ask, in order; empty where the file names nobody.
    pub servers: Vec<IpAddr>,
    /// What a name is perhaps relative to, in order.
    pub search: Vec<Name>,
    /// The same, where `search` says nothing.
    pub domain: Option<Name>,
    /// Dots that make a name absolute at first.
    pub ndots: usize,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How often it is asked.
    pub attempts: usize,
    /// Whether larger answers are asked for (RFC 6891).
    pub edns0: bool,
}

/// Whose domain a file without one means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// That in the name of this host.
    Host,
    /// Nobody's.
    None,
}

impl ResolvConf {
    /// Reads a resolv.conf.
    pub fn parse(text: &[u8], fallback: Fallback) -> Self {
        let (config, _) = Config::parse_with_errors(text);
        let search = config.get_last_search_or_domain();
        let search = search.filter_map(|name| Name::from_str_relaxed(name).ok());
        let domain = match fallback {
            Fallback::Host => config.get_system_domain(),
            Fallback::None => config.get_domain().cloned(),
        };
        let servers = config.nameservers.iter().map(IpAddr::from);
        Self {
            servers: servers.take(SERVERS_MAX).collect(),
            search: search.take(SEARCH_MAX).collect(),
            domain: domain.and_then(|name| Name::from_str_relaxed(name).ok()),
            ndots: config.ndots.min(NDOTS_MAX) as usize,
            timeout: Duration::from_secs(config.timeout.clamp(1, TIMEOUT_MAX).into()),
            attempts: config.attempts.clamp(1, ATTEMPTS_MAX) as usize,
            edns0: config.edns0,
        }
    }
}

/// The addresses that a hosts file gives a name.
pub fn addresses(hosts: &[u8], name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_it = |word: &[u8]| {
        let word = word.strip_suffix(b".").unwrap_or(word);
        word.eq_ignore_ascii_case(name.as_bytes())
    };
    let address = |line: &[u8]| {
        let code = line.split(|byte| *byte == b'#').next()?;
        let words = code.split(u8::is_ascii_whitespace);
        let mut words = words.filter(|word| !word.is_empty());
        let address = str::from_utf8(words.next()?).ok()?.parse().ok()?;
        words.any(is_it).then_some(address)
    };
    let lines = hosts.split(|byte| *byte == b'\n');
    lines.filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_file_gives_addresses_to_names() {
        let hosts = b"# 10.0.0.9 web\n\
            10.0.0.1 web web.example # db\n\
            ::1\tWEB\r\n\
            \n\
            nonsense web\n\
            10.0.0.2 \xff db web2\n\
            10.0.0.3 db.";
        let of = |name| {
            addresses(hosts, name)
                .iter()
                .map(IpAddr::to_string)
                .collect()
        };
        let cases: [(&str, &[&str]); 6] = [
            ("web", &["10.0.0.1", "::1"]),
            ("Web.", &["10.0.0.1", "::1"]),
            ("web.example", &["10.0.0.1"]),
            ("db", &["10.0.0.2", "10.0.0.3"]),
            ("example", &[]),
            ("", &[]),
        ];
        for (name, expected) in cases {
            let found: Vec<String> = of(name);
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn a_resolv_conf_says_how_to_ask() {
        let text = b"nameserver 10.0.0.1\nnameserver fe80::1%eth0\n\
            domain example.com\nsearch a.example b.example\n\
            options ndots:2 timeout:3 attempts:4 unheard-of\n";
        let read = ResolvConf::parse(text, Fallback::None);
        let servers: Vec<IpAddr> = ["10.0.0.1", "fe80::1"].map(|ip| ip.parse().unwrap()).into();
        assert_eq!(read.servers, servers);
        let search: Vec<String> = read.search.iter().map(Name::to_string).collect();
        assert_eq!(search, ["a.example", "b.example"]);
        let said = (read.ndots, read.timeout, read.attempts);
        assert_eq!(said, (2, Duration::from_secs(3), 4));
    }

    #[test]
    fn what_a_resolv_conf_asks_for_has_limits() {
        let mut text =
            String::from("options ndots:4294967295 timeout:4294967295 attempts:99\nsearch");
        text.extend((0..99).map(|n| format!(" s{n}.example")));
        text.extend((0..99).map(|n| format!("\nnameserver 10.0.0.{n}")));
        let read = ResolvConf::parse(text.as_bytes(), Fallback::None);
        assert_eq!((read.servers.len(), read.search.len()), (3, 6));
        let said = (read.ndots, read.timeout, read.attempts);
        assert_eq!(said, (15, Duration::from_secs(30), 5));
        let nothing = b"options timeout:0 attempts:0\nroot:$6$x:1\n\xff\nnameserver\nsearch ..";
        let read = ResolvConf::parse(nothing, Fallback::None);
        assert_eq!((read.timeout, read.attempts), (Duration::from_secs(1), 1));
        assert_eq!((read.servers.len(), read.domain), (0, None));
    }
}
