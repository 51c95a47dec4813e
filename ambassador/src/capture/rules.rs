//! Scope and claims as the kernel's longest-prefix table.
//!
//! The kernel finds one entry per lookup, so each entry carries the whole
//! answer: for every prefix that any rule names, everything that applies there
//! is worked out here. A port that a rule names gets a complete set of its own;
//! all other ports share one. All policy is here, none in the programs.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ambassador_ebpf::{RULE_PREFIX_BITS, RULES_MAX, rule};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::settings::{Claims, OnFailure, Quic, Scope, Settings};
use crate::route::settings::Unmatched;

/// One entry of the kernel's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    /// `None`: every port without a set of its own.
    pub port: Option<u16>,
    /// The prefix it answers for.
    pub net: IpNet,
    /// Bits of [`rule`].
    pub value: u32,
}

/// The rules do not fit the kernel's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyRules {
    /// How many entries they need.
    pub needed: usize,
    /// How many there are.
    pub available: usize,
}

/// Works out the table. Two generations of it must fit the kernel's.
pub(super) fn compile(settings: &Settings, claims: &Claims) -> Result<Vec<Rule>, TooManyRules> {
    let named_ports: BTreeSet<u16> = settings
        .include
        .ports
        .iter()
        .chain(&settings.exclude.ports)
        .copied()
        .chain(claims.nets.iter().filter_map(|(_, port, _)| *port))
        .collect();
    let ports = std::iter::once(None).chain(named_ports.into_iter().map(Some));
    let available = (RULES_MAX / 2) as usize;
    let mut rules = Vec::new();
    for port in ports {
        let nets: BTreeSet<IpNet> = always()
            .into_iter()
            .chain(settings.include.cidrs.iter().copied())
            .chain(settings.exclude.cidrs.iter().copied())
            .chain(
                claims
                    .nets
                    .iter()
                    .filter(|(_, of, _)| of.is_none() || *of == port)
                    .map(|(net, _, _)| *net),
            )
            .map(|net| net.trunc())
            .collect();
        if rules.len() + nets.len() > available {
            let needed = rules.len() + nets.len();
            return Err(TooManyRules { needed, available });
        }
        rules.extend(nets.into_iter().map(|net| Rule {
            port,
            net,
            value: decide(settings, claims, net, port),
        }));
    }
    Ok(rules)
}

impl Rule {
    /// The entry's prefix length and address as the kernel's key has them.
    pub(super) fn key_parts(&self) -> (u32, [u32; 4]) {
        let (bits, ip) = match self.net {
            IpNet::V4(net) => (
                96 + u32::from(net.prefix_len()),
                net.network().to_ipv6_mapped(),
            ),
            IpNet::V6(net) => (u32::from(net.prefix_len()), net.network()),
        };
        (RULE_PREFIX_BITS + bits, words(ip))
    }
}

/// An address as the kernel side has it: four words in network order.
pub(super) fn words(ip: Ipv6Addr) -> [u32; 4] {
    let octets = ip.octets();
    std::array::from_fn(|i| {
        u32::from_ne_bytes([
            octets[4 * i],
            octets[4 * i + 1],
            octets[4 * i + 2],
            octets[4 * i + 3],
        ])
    })
}

/// Prefixes every set has, so that a lookup always finds its own family's
/// answer: all of each family, and what loopback is.
fn always() -> Vec<IpNet> {
    let mut nets = vec![IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    nets.extend(loopback());
    nets
}

/// Loopback, and the unspecified addresses that mean it in a connect().
fn loopback() -> [IpNet; 4] {
    let host = |ip: IpAddr| IpNet::from(ip);
    [
        Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
        host(Ipv4Addr::UNSPECIFIED.into()),
        host(Ipv6Addr::LOCALHOST.into()),
        host(Ipv6Addr::UNSPECIFIED.into()),
    ]
}

fn decide(settings: &Settings, claims: &Claims, net: IpNet, port: Option<u16>) -> u32 {
    let claim = best_claim(claims, net, port);
    let fail = claim
        .and_then(|on_failure| on_failure)
        .unwrap_or(settings.on_failure);
    let mut value = match fail {
        OnFailure::Bypass => 0,
        OnFailure::Refuse => rule::FAIL_CLOSED,
    };
    if !in_scope(settings, net, port) {
        return rule::BYPASS;
    }
    let action = if claim.is_some() {
        value |= rule::CLAIMED;
        rule::CAPTURE
    } else {
        match settings.unmatched {
            Unmatched::Proxy | Unmatched::Adopt => rule::CAPTURE,
            Unmatched::Passthrough => rule::PASSTHROUGH,
            Unmatched::Refuse if claims.any_names => rule::CAPTURE,
            Unmatched::Refuse => rule::REFUSE,
        }
    };
    if settings.quic == Quic::Refuse && action != rule::PASSTHROUGH {
        value |= rule::NO_QUIC;
    }
    value | action
}

fn in_scope(settings: &Settings, net: IpNet, port: Option<u16>) -> bool {
    let inside_loopback = |net: &IpNet| loopback().iter().any(|lo| lo.contains(net));
    let Scope { ports, cidrs } = &settings.include;
    let included = if inside_loopback(&net) {
        cidrs
            .iter()
            .any(|cidr| inside_loopback(cidr) && cidr.contains(&net))
    } else {
        cidrs.is_empty() || cidrs.iter().any(|cidr| cidr.contains(&net))
    };
    included && port_matches(ports, port) && !excluded(&settings.exclude, net, port)
}

fn excluded(scope: &Scope, net: IpNet, port: Option<u16>) -> bool {
    if scope.ports.is_empty() && scope.cidrs.is_empty() {
        return false;
    }
    port_matches(&scope.ports, port)
        && (scope.cidrs.is_empty() || scope.cidrs.iter().any(|cidr| cidr.contains(&net)))
}

/// `None` is a port that no list names.
fn port_matches(ports: &[u16], port: Option<u16>) -> bool {
    ports.is_empty() || port.is_some_and(|port| ports.contains(&port))
}

/// The failure policy of the most specific claim: the longer prefix, then with
/// a port over without.
fn best_claim(claims: &Claims, net: IpNet, port: Option<u16>) -> Option<Option<OnFailure>> {
    claims
        .nets
        .iter()
        .filter(|(of, at, _)| of.contains(&net) && (at.is_none() || *at == port))
        .max_by_key(|(of, at, _)| (of.prefix_len(), at.is_some()))
        .map(|(_, _, on_failure)| *on_failure)
}
