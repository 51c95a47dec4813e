//! The kinds of value that a key can hold.

mod moment;
mod policies;
mod propagation;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::read::{Scalar, nearest};
use crate::addr::{Authority, BindAddr};
use crate::route::settings::{Claim, HostMatch};
use crate::workload;
use crate::workload::identity::Ids;

pub(super) use moment::Moment;
pub(super) use policies::{
    ByteRateOrOff, CountOrNone, CountOrOff, Flag, HedgeAfter, KeepAlive, MemoryLimit, Off, Rate,
    RatioOrOff, RetryCause, Size, StatusRange, TimeLimit,
};
pub(super) use propagation::Propagation;

/// A year: longer than anything here has to wait, and far from overflow.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// `sun_path` of `sockaddr_un` has 108 bytes, the last of them NUL.
const UNIX_PATH_BYTES_MAX: usize = 107;
/// As long as useradd takes it.
const USER_NAME_BYTES_MAX: usize = 32;
/// Shards; more than any machine has CPUs for.
const WORKERS_MAX: u16 = 1024;

#[derive(Debug, Clone, Copy)]
pub(super) struct Time(pub(super) Duration);

/// A share, from 0 to 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Percent(pub(super) f64);

#[derive(Debug, Clone, Copy)]
pub(super) struct Count(pub(super) u32);

#[derive(Debug, Clone, Copy)]
pub(super) struct Port(pub(super) u16);

/// `None`: auto.
#[derive(Debug, Clone, Copy)]
pub(super) struct Workers(pub(super) Option<u16>);

/// Who a process is.
#[derive(Debug, Clone)]
pub(super) struct User(pub(super) workload::User);

#[derive(Debug, Clone)]
pub(super) struct Text(pub(super) String);

/// A path from the root.
#[derive(Debug, Clone)]
pub(super) struct AbsolutePath(pub(super) PathBuf);

#[derive(Debug, Clone)]
pub(super) struct Bind(pub(super) BindAddr);

/// Something that can be dialled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address(pub(super) SocketAddr);

#[derive(Debug, Clone)]
pub(super) struct DnsName {
    pub(super) name: String,
    pub(super) port: u16,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Cidr(pub(super) IpNet);

#[derive(Debug, Clone)]
pub(super) struct Host(pub(super) Claim);

#[derive(Debug, Clone)]
pub(super) struct RouteHost(pub(super) HostMatch);

impl Scalar for Time {
    fn parse(text: &str) -> Result<Self, String> {
        const WANTED: &str = "must be a whole number and a unit (ms, s, m, h, d), as 250ms or 10s";
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| WANTED)?;
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(WANTED.to_owned()),
        };
        let duration = number.checked_mul(unit_ms).map(Duration::from_millis);
        match duration.filter(|duration| *duration <= DURATION_MAX) {
            Some(duration) => Ok(Self(duration)),
            None => Err("must be at most 365d".to_owned()),
        }
    }
}

impl Scalar for Percent {
    fn parse(text: &str) -> Result<Self, String> {
        let number = text
            .strip_suffix('%')
            .filter(|number| number.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
        let number = number.and_then(|number| number.parse::<f64>().ok());
        match number {
            Some(number) if (0.0..=100.0).contains(&number) => Ok(Self(number / 100.0)),
            _ => Err("must be a percentage from 0% to 100%".to_owned()),
        }
    }
}

impl Scalar for Count {
    fn parse(text: &str) -> Result<Self, String> {
        let what = || format!("must be a whole number from 0 to {}", u32::MAX);
        number(text).ok_or_else(what).map(Self)
    }
}

impl Scalar for Port {
    fn parse(text: &str) -> Result<Self, String> {
        match number(text) {
            Some(0) | None => Err("must be a port from 1 to 65535".to_owned()),
            Some(port) => Ok(Self(port)),
        }
    }
}

impl Scalar for Workers {
    fn parse(text: &str) -> Result<Self, String> {
        match (text, number(text)) {
            ("auto", _) => Ok(Self(None)),
            (_, Some(count)) if (1..=WORKERS_MAX).contains(&count) => Ok(Self(Some(count))),
            _ => Err(format!("must be auto or a number from 1 to {WORKERS_MAX}")),
        }
    }
}

impl Scalar for User {
    fn parse(text: &str) -> Result<Self, String> {
        let ids = text.split_once(':').map(|(uid, gid)| {
            let (uid, gid) = (number(uid)?, number(gid)?);
            // The highest means "as it is" in the calls that change it.
            (uid != u32::MAX && gid != u32::MAX).then_some(Ids { uid, gid })
        });
        // As useradd takes it; no group, number or path is mistaken for one.
        let is_name = |text: &str| {
            let mut rest = text.bytes();
            let first = rest.next();
            text.len() <= USER_NAME_BYTES_MAX
                && first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
                && rest.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        Ok(Self(match (text, ids.flatten()) {
            ("auto", _) => workload::User::Auto,
            (_, Some(ids)) => workload::User::Ids(ids),
            (name, None) if is_name(name) => workload::User::Named(name.to_owned()),
            _ => return Err("must be auto, the name of a user, or uid:gid as 998:998".to_owned()),
        }))
    }
}

impl Scalar for Text {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
}

impl Scalar for AbsolutePath {
    fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') || text.contains('\0') {
            return Err("must be a path from the root".to_owned());
        }
        Ok(Self(text.into()))
    }
}

impl Scalar for Bind {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let AbsolutePath(path) = AbsolutePath::parse(path)
                .map_err(|_| "must name the socket by a path from the root, as unix:/run/a.sock")?;
            if path.as_os_str().len() > UNIX_PATH_BYTES_MAX {
                return Err(format!(
                    "must be a unix socket path of at most {UNIX_PATH_BYTES_MAX} bytes"
                ));
            }
            return Ok(Self(BindAddr::Unix(path)));
        }
        let address = text.parse().map_err(|_| {
            "must be an IP address and port, as 127.0.0.1:8081, or unix:/path".to_owned()
        })?;
        Ok(Self(BindAddr::Tcp(address)))
    }
}

impl Scalar for Address {
    fn parse(text: &str) -> Result<Self, String> {
        let address: SocketAddr = text.parse().map_err(|_| {
            "must be an IP address and port, as 10.1.2.3:8443 (for a name use dns)".to_owned()
        })?;
        if address.port() == 0 {
            return Err("must have a port from 1 to 65535".to_owned());
        }
        if address.ip().is_unspecified() || address.ip().is_multicast() {
            return Err("must be the address of one host".to_owned());
        }
        Ok(Self(SocketAddr::new(
            address.ip().to_canonical(),
            address.port(),
        )))
    }
}

impl Scalar for DnsName {
    fn parse(text: &str) -> Result<Self, String> {
        let what = "must be a host name and port, as api.payments.example:443";
        let authority: Authority = text.parse().map_err(|_| what)?;
        let port = authority.port().ok_or(what)?;
        if authority.ip().is_some() {
            return Err("must be a name; addresses stand under endpoints".to_owned());
        }
        host_name(authority.host())?;
        let name = authority.host().to_owned();
        Ok(Self { name, port })
    }
}

impl Scalar for Cidr {
    fn parse(text: &str) -> Result<Self, String> {
        network(text).map(Self)
    }
}

impl Scalar for Host {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some((suffix, port)) = wildcard(text)? {
            return Ok(Self(Claim::Wildcard { suffix, port }));
        }
        // An address can hold colons and slashes, so it is tried whole first.
        let looks_like_net = text.contains('/') || text.starts_with('[');
        if looks_like_net || text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok() {
            let (net, port) = net_and_port(text)?;
            let net = network(net)?;
            return Ok(Self(Claim::Net { net, port }));
        }
        let authority: Authority = text.parse().map_err(|error| {
            format!(
                "must be a host name, *.suffix, address or CIDR, with or without a port: {error}"
            )
        })?;
        host_name(authority.host())?;
        Ok(Self(Claim::Name {
            host: authority.host().to_owned(),
            port: authority.port(),
        }))
    }
}

impl Scalar for RouteHost {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some((suffix, port)) = wildcard(text)? {
            return Ok(Self(HostMatch::Wildcard { suffix, port }));
        }
        let authority: Authority = text.parse().map_err(|error| {
            format!("must be a host name, *.suffix or address, with or without a port: {error}")
        })?;
        if authority.ip().is_none() {
            host_name(authority.host())?;
        }
        Ok(Self(HostMatch::Exact(authority)))
    }
}

/// A number written with digits only.
pub(super) fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// `*.suffix` with or without a port; `None` where there is no asterisk.
fn wildcard(text: &str) -> Result<Option<(String, Option<u16>)>, String> {
    if !text.contains('*') {
        return Ok(None);
    }
    let what = "a wildcard stands for the first labels, as *.pay.svc";
    let rest = text.strip_prefix("*.").ok_or(what)?;
    let authority: Authority = rest.parse().map_err(|_| what)?;
    if authority.ip().is_some() {
        return Err("a wildcard goes before a name; addresses are written as a CIDR".to_owned());
    }
    host_name(authority.host())?;
    Ok(Some((format!(".{}", authority.host()), authority.port())))
}

/// RFC 1123 labels, with the underscore that DNS itself allows.
fn host_name(host: &str) -> Result<(), String> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.len() > 253 || !host.split('.').all(label) {
        return Err("must be a host name: labels of letters, digits and hyphens".to_owned());
    }
    let last = host.rsplit('.').next().unwrap_or(host);
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return Err("must be a host name or a whole IP address".to_owned());
    }
    Ok(())
}

/// `10.2.0.0/16:8443`, `[2001:db8::/32]:8443`, `[2001:db8::1]`, ...
fn net_and_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let (net, port) = if let Some(rest) = text.strip_prefix('[') {
        let (net, port) = rest.split_once(']').ok_or("must close its bracket")?;
        match port {
            "" => (net, None),
            _ => (
                net,
                Some(port.strip_prefix(':').ok_or("must be [address]:port")?),
            ),
        }
    } else {
        match text.rsplit_once(':') {
            // More than one colon without brackets: a bare IPv6 address.
            Some((net, port)) if !net.contains(':') => (net, Some(port)),
            _ => (text, None),
        }
    };
    match port.map(Port::parse).transpose()? {
        Some(Port(port)) => Ok((net, Some(port))),
        None => Ok((net, None)),
    }
}

/// An address or a CIDR whose host bits are zero. v4-mapped ones become v4.
fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let net: IpNet = text
        .parse()
        .map_err(|_| "must be an IP address or CIDR, as 10.2.0.0/16".to_owned())?;
    if net.trunc() != net {
        return Err(format!(
            "has bits set beyond its prefix, did you mean {}?",
            net.trunc()
        ));
    }
    match net.addr().to_canonical() {
        IpAddr::V4(v4) if net.addr().is_ipv6() && net.prefix_len() >= 96 => {
            IpNet::new(v4.into(), net.prefix_len() - 96).map_err(|error| error.to_string())
        }
        _ => Ok(net),
    }
}

/// The word of a choice, or which there are.
pub(super) fn choose<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let all = || words.iter().map(|(word, _)| *word);
    let mut what = format!("must be one of {}", all().collect::<Vec<_>>().join(", "));
    if let Some(meant) = nearest(text, all()) {
        what = format!("{what}; did you mean {meant}?");
    }
    Err(what)
}

macro_rules! value_schemas {
    ($($name:ident: $schema:tt,)*) => {$(
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

use value_schemas;

value_schemas! {
    Time: { "type": "string", "format": "duration", "pattern": "^[0-9]+(ms|s|m|h|d)$" },
    Percent: { "type": "string", "format": "percentage", "pattern": "^[0-9]+(\\.[0-9]+)?%$" },
    Count: { "type": "integer", "minimum": 0, "maximum": u32::MAX },
    Port: { "type": "integer", "minimum": 1, "maximum": u16::MAX },
    Workers: { "anyOf": [
        { "const": "auto" },
        { "type": "integer", "minimum": 1, "maximum": WORKERS_MAX },
    ] },
    User: { "type": "string", "format": "auto, name or uid:gid" },
    Text: { "type": "string" },
    AbsolutePath: { "type": "string", "format": "path", "pattern": "^/" },
    Bind: { "type": "string", "format": "ip:port or unix:/path" },
    Address: { "type": "string", "format": "ip:port" },
    DnsName: { "type": "string", "format": "name:port" },
    Cidr: { "type": "string", "format": "address or CIDR" },
    Host: { "type": "string", "format": "name, *.suffix, address or CIDR, with or without :port" },
    RouteHost: { "type": "string", "format": "name, *.suffix or address, with or without :port" },
}

/// Words of the file and what each means.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident: $target:ty {
        $($(#[$variant_meta:meta])* $variant:ident = $word:literal => $value:expr,)*
    }) => {
        #[derive(Debug, Clone, Copy, schemars::JsonSchema)]
        $(#[$meta])*
        #[schemars(inline)]
        pub(in crate::config) enum $name {
            $($(#[$variant_meta])* #[schemars(rename = $word)] $variant,)*
        }

        impl $crate::config::read::Scalar for $name {
            fn parse(text: &str) -> Result<Self, String> {
                $crate::config::values::choose(text, &[$(($word, Self::$variant)),*])
            }
        }

        impl $name {
            /// What the word means to the rest of the program.
            pub(in crate::config) fn meaning(self) -> $target {
                match self {
                    $(Self::$variant => $value,)*
                }
            }

            /// How a meaning is written in the file.
            pub(in crate::config) fn word(meaning: $target) -> &'static str {
                [$(($word, $value)),*]
                    .into_iter()
                    .find(|(_, value)| *value == meaning)
                    .map_or("", |(word, _)| word)
            }
        }
    };
}
pub(super) use choice;
