//! Paths and addresses: of files, listeners, endpoints and hosts.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::{Port, fills, value_schemas};
use crate::addr::{Authority, BindAddr};
use crate::config::read::Scalar;
use crate::route::settings::{Claim, HostMatch};

/// `sun_path` of `sockaddr_un` has 108 bytes, the last of them NUL.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// A path from the root.
#[derive(Debug, Clone)]
pub(in crate::config) struct AbsolutePath(pub(in crate::config) PathBuf);

#[derive(Debug, Clone)]
pub(in crate::config) struct Bind(pub(in crate::config) BindAddr);

/// Something that can be dialled.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Address(pub(in crate::config) SocketAddr);

#[derive(Debug, Clone)]
pub(in crate::config) struct DnsName {
    pub(in crate::config) name: String,
    pub(in crate::config) port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::config) struct Cidr(pub(in crate::config) IpNet);

#[derive(Debug, Clone)]
pub(in crate::config) struct Host(pub(in crate::config) Claim);

#[derive(Debug, Clone)]
pub(in crate::config) struct RouteHost(pub(in crate::config) HostMatch);

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

/// Whether a text is a host name, or what is wrong with it.
pub(super) fn is_host_name(text: &str) -> Result<(), String> {
    host_name(text)
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

/// A claim as the file writes it.
pub(in crate::config) fn claim(claim: &Claim) -> String {
    let (host, port) = match claim {
        Claim::Name { host, port } => (host.clone(), port),
        Claim::Wildcard { suffix, port } => (format!("*{suffix}"), port),
        Claim::Net { net, port } => {
            let full = net.prefix_len() == net.max_prefix_len();
            let host = if full {
                net.addr().to_string()
            } else {
                net.to_string()
            };
            match (net.addr().is_ipv6(), port) {
                (true, Some(_)) => (format!("[{host}]"), port),
                _ => (host, port),
            }
        }
    };
    port.map_or(host.clone(), |port| format!("{host}:{port}"))
}

fn route_host(host: &HostMatch) -> String {
    match host {
        HostMatch::Exact(authority) => authority.to_string(),
        HostMatch::Wildcard { suffix, port } => claim(&Claim::Wildcard {
            suffix: suffix.clone(),
            port: *port,
        }),
    }
}

fills! {
    AbsolutePath => PathBuf, |path| Some(path.display().to_string().into());
    Bind => BindAddr, |bind| Some(bind.to_string().into());
    Cidr => IpNet, |net| Some(net.to_string().into());
    RouteHost => HostMatch, |host| Some(route_host(host).into());
}

value_schemas! {
    AbsolutePath: { "type": "string", "format": "path", "pattern": "^/" },
    Bind: { "type": "string", "format": "ip:port or unix:/path" },
    Address: { "type": "string", "format": "ip:port" },
    DnsName: { "type": "string", "format": "name:port" },
    Cidr: { "type": "string", "format": "address or CIDR" },
    Host: { "type": "string", "format": "name, *.suffix, address or CIDR, with or without :port" },
    RouteHost: { "type": "string", "format": "name, *.suffix or address, with or without :port" },
}
