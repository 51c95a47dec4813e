//! Routes of IPv6 tokens without their proxy, found and removed by ip(8).

use std::fs;
use std::io;
use std::process::Command;

/// What every token prefix begins with; the port of the proxy follows, then
/// nothing.
const PREFIX: &str = "fd7f:656d:6261:";

/// A routing rule and the table behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenRoute {
    proxy_port: u16,
    table: String,
}

impl TokenRoute {
    /// The destinations it is for.
    pub(crate) fn prefix(&self) -> String {
        format!("{PREFIX}{:x}::/64", self.proxy_port)
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        ip(&["-6", "route", "flush", "table", &self.table])?;
        ip(&[
            "-6",
            "rule",
            "del",
            "to",
            &self.prefix(),
            "lookup",
            &self.table,
        ])
        .map(drop)
    }
}

/// Those whose proxy does not listen any more. None where ip(8) is missing.
pub(super) fn unused() -> Vec<TokenRoute> {
    let rules = ip(&["-6", "rule", "show"]).unwrap_or_default();
    let sockets = ["tcp", "tcp6"]
        .map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")))
        .map(Result::unwrap_or_default)
        .concat();
    let routes = rules.lines().filter_map(parse);
    routes
        .filter(|route| !listening(&sockets, route.proxy_port))
        .collect()
}

/// `100: from all to fd7f:656d:6261:1f90::/64 iif lo lookup 2137333648`
fn parse(rule: &str) -> Option<TokenRoute> {
    let mut words = rule.split_whitespace();
    let mut after = |word: &str| words.find(|w| *w == word).and_then(|_| words.next());
    let port = after("to")?.strip_prefix(PREFIX)?.strip_suffix("::/64")?;
    let proxy_port = u16::from_str_radix(port, 16).ok()?;
    let table = after("lookup")?.to_owned();
    Some(TokenRoute { proxy_port, table })
}

/// Whether a table of proc_net_tcp(5) has a listener (state 0A) at a port.
fn listening(sockets: &str, port: u16) -> bool {
    let port = format!(":{port:04X}");
    sockets.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().is_some_and(|local| local.ends_with(&port));
        local && fields.nth(1) == Some("0A")
    })
}

fn ip(arguments: &[&str]) -> io::Result<String> {
    let output = Command::new("ip").args(arguments).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(io::Error::other(words))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Netns;

    #[test]
    fn a_route_whose_proxy_listens_is_in_use() {
        let name = format!("amb-B-route-{}", std::process::id());
        ip(&["netns", "add", &name]).unwrap();
        let path = std::path::Path::new("/run/netns").join(&name);
        let netns = Netns::open(&path).unwrap();
        let found = netns.run(|| {
            let listener = std::net::TcpListener::bind("[::]:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let prefix = format!("{PREFIX}{port:x}::/64");
            ip(&["link", "set", "lo", "up"]).unwrap();
            ip(&[
                "-6", "route", "add", "local", &prefix, "dev", "lo", "table", "77",
            ])
            .unwrap();
            ip(&[
                "-6", "rule", "add", "to", &prefix, "iif", "lo", "lookup", "77",
            ])
            .unwrap();
            let in_use = unused();
            drop(listener);
            let left = unused();
            left[0].remove().unwrap();
            (in_use, left, unused())
        });
        ip(&["netns", "del", &name]).unwrap();
        let (in_use, left, after) = found.unwrap();
        assert_eq!((in_use.len(), left.len(), after.len()), (0, 1, 0));
    }
}
