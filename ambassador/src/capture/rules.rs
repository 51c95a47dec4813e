//! Scope and claims as the kernel's longest-prefix table.
//!
//! The kernel finds one entry per lookup, so each entry carries the whole
//! answer: for every prefix that any rule names, everything that applies there
//! is worked out here. A port that a rule names gets a complete set of its own;
//! all other ports share one. All policy is here, none in the programs.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ambassador_ebpf::{CIRCUIT_NONE, RULE_PREFIX_BITS, RULES_MAX, rule};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::settings::{Claim, Claims, OnFailure, Quic, Scope, Settings};
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
    let mut settings = settings.clone();
    let mut claims = claims.clone();
    let scopes = [&mut settings.include, &mut settings.exclude];
    let cidrs = scopes.into_iter().flat_map(|scope| &mut scope.cidrs);
    for net in cidrs.chain(claims.nets.iter_mut().map(|claim| &mut claim.net)) {
        *net = canonical(*net);
    }
    compile_canonical(&settings, &claims)
}

/// A v4-mapped network as the IPv4 one that it means.
fn canonical(net: IpNet) -> IpNet {
    let mapped = match net {
        IpNet::V6(net) if net.prefix_len() >= 96 => net.network().to_ipv4_mapped(),
        IpNet::V6(_) | IpNet::V4(_) => None,
    };
    mapped.map_or(net, |ip| {
        Ipv4Net::new_assert(ip, net.prefix_len() - 96).into()
    })
}

fn compile_canonical(settings: &Settings, claims: &Claims) -> Result<Vec<Rule>, TooManyRules> {
    let named_ports: BTreeSet<u16> = settings
        .include
        .ports
        .iter()
        .chain(&settings.exclude.ports)
        .copied()
        .chain(claims.nets.iter().filter_map(|claim| claim.port))
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
                    .filter(|claim| claim.port.is_none() || claim.port == port)
                    .map(|claim| claim.net),
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
    let own = claim.and_then(|claim| on_failure(claims, claim));
    let fail = own.unwrap_or(settings.on_failure);
    let mut value = match fail {
        OnFailure::Bypass => 0,
        OnFailure::Refuse => rule::FAIL_CLOSED,
    };
    if !in_scope(settings, net, port) {
        return rule::BYPASS;
    }
    let action = if claim.is_some() {
        value |= rule::CLAIMED | circuit(claims, net, port) << rule::CIRCUIT_SHIFT;
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

/// The most specific claim: the longer prefix, then with a port over without.
fn best_claim(claims: &Claims, net: IpNet, port: Option<u16>) -> Option<&Claim> {
    claims
        .nets
        .iter()
        .filter(|claim| claim.covers(&net, port))
        .max_by_key(|claim| (claim.net.prefix_len(), claim.port.is_some()))
}

/// What those say together that have this claim. One that has something to hide is
/// not to be left to another that has not.
fn on_failure(claims: &Claims, claim: &Claim) -> Option<OnFailure> {
    let is_same = |other: &&Claim| (other.net, other.port) == (claim.net, claim.port);
    let same = claims.nets.iter().filter(is_same);
    let refuses = |other: &Claim| other.on_failure == Some(OnFailure::Refuse);
    match same.clone().any(refuses) {
        true => Some(OnFailure::Refuse),
        false => same.filter_map(|other| other.on_failure).next(),
    }
}

/// The circuit that all claims have in common. A connect to what somebody else
/// claims as well may be meant for them, which shows only in what it says.
fn circuit(claims: &Claims, net: IpNet, port: Option<u16>) -> u32 {
    let mut circuits = claims
        .nets
        .iter()
        .filter(|claim| claim.covers(&net, port))
        .map(|claim| claim.circuit);
    let first = circuits.next().flatten();
    let common = first.filter(|_| circuits.all(|circuit| circuit == first));
    common.map_or(CIRCUIT_NONE, |circuit| u32::from(circuit.get()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::capture::circuits::CircuitNumber;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn scope(ports: &[u16], cidrs: &[&str]) -> Scope {
        Scope {
            ports: ports.to_vec(),
            cidrs: cidrs.iter().map(|text| net(text)).collect(),
        }
    }

    fn claim(text: &str, port: Option<u16>) -> Claim {
        Claim::new(net(text), port)
    }

    /// What the kernel's two lookups find.
    fn look_up(rules: &[Rule], ip: &str, port: u16) -> u32 {
        let ip: IpAddr = ip.parse().unwrap();
        let longest = |port: Option<u16>| {
            rules
                .iter()
                .filter(|rule| rule.port == port && rule.net.contains(&ip))
                .max_by_key(|rule| rule.net.prefix_len())
        };
        let rule = longest(Some(port)).or_else(|| longest(None));
        rule.map_or(rule::BYPASS, |rule| rule.value)
    }

    fn action(settings: &Settings, claims: &Claims, ip: &str, port: u16) -> u32 {
        look_up(&compile(settings, claims).unwrap(), ip, port) & rule::ACTION
    }

    #[test]
    fn everything_but_loopback_is_the_scope() {
        let settings = Settings::default();
        let claims = Claims::default();
        for ip in ["10.1.2.3", "8.8.8.8", "2001:db8::1"] {
            assert_eq!(action(&settings, &claims, ip, 80), rule::CAPTURE, "{ip}");
        }
        for ip in ["127.0.0.1", "127.9.9.9", "0.0.0.0", "::1", "::"] {
            assert_eq!(action(&settings, &claims, ip, 80), rule::BYPASS, "{ip}");
        }
    }

    #[test]
    fn scopes_join_ports_and_networks() {
        let settings = Settings {
            include: scope(&[80, 443], &["0.0.0.0/0"]),
            exclude: scope(&[], &["169.254.169.254/32", "10.9.0.0/16"]),
            ..Settings::default()
        };
        let claims = Claims {
            nets: vec![claim("10.9.1.0/24", None)],
            any_names: false,
        };
        assert_eq!(action(&settings, &claims, "10.1.2.3", 443), rule::CAPTURE);
        assert_eq!(action(&settings, &claims, "10.1.2.3", 22), rule::BYPASS);
        assert_eq!(action(&settings, &claims, "2001:db8::1", 80), rule::BYPASS);
        assert_eq!(action(&settings, &claims, "127.0.0.1", 80), rule::BYPASS);
        assert_eq!(
            action(&settings, &claims, "169.254.169.254", 80),
            rule::BYPASS
        );
        assert_eq!(
            action(&settings, &claims, "10.9.1.1", 80),
            rule::BYPASS,
            "claimed too"
        );
    }

    #[test]
    fn mapped_networks_mean_ipv4() {
        let settings = Settings {
            include: scope(&[], &["::ffff:10.0.0.0/104"]),
            ..Settings::default()
        };
        let claims = Claims::default();
        assert_eq!(action(&settings, &claims, "10.1.2.3", 80), rule::CAPTURE);
        assert_eq!(action(&settings, &claims, "11.1.2.3", 80), rule::BYPASS);
    }

    #[test]
    fn unclaimed_destinations_follow_unmatched() {
        let claims = Claims {
            nets: vec![claim("10.2.0.0/16", Some(8443)), claim("10.3.0.1/32", None)],
            any_names: false,
        };
        let mut settings = Settings {
            unmatched: Unmatched::Passthrough,
            ..Settings::default()
        };
        assert_eq!(action(&settings, &claims, "10.2.9.9", 8443), rule::CAPTURE);
        assert_eq!(
            action(&settings, &claims, "10.2.9.9", 8444),
            rule::PASSTHROUGH
        );
        assert_eq!(action(&settings, &claims, "10.3.0.1", 8443), rule::CAPTURE);
        assert_eq!(
            action(&settings, &claims, "10.4.0.1", 8443),
            rule::PASSTHROUGH
        );
        settings.unmatched = Unmatched::Refuse;
        assert_eq!(action(&settings, &claims, "10.4.0.1", 80), rule::REFUSE);
        let named = Claims {
            any_names: true,
            ..claims
        };
        assert_eq!(
            action(&settings, &named, "10.4.0.1", 80),
            rule::CAPTURE,
            "sniffed first"
        );
    }

    #[test]
    fn the_most_specific_claim_says_what_failure_means() {
        let settings = Settings::default();
        let claims = Claims {
            nets: vec![
                claim("10.0.0.0/8", None),
                Claim {
                    on_failure: Some(OnFailure::Refuse),
                    ..claim("10.1.0.0/16", None)
                },
                Claim {
                    on_failure: Some(OnFailure::Bypass),
                    ..claim("10.1.0.0/16", Some(80))
                },
            ],
            any_names: false,
        };
        let mut both = claims.clone();
        let rules = compile(&settings, &claims).unwrap();
        let closed = |ip, port| look_up(&rules, ip, port) & rule::FAIL_CLOSED != 0;
        assert!(!closed("10.2.0.1", 443));
        assert!(closed("10.1.0.1", 443));
        assert!(!closed("10.1.0.1", 80));
        // Whoever else claims the same does not open it.
        let other = claim("10.1.0.0/16", None);
        for at in [1, 2] {
            both.nets.insert(at, other);
            let rules = compile(&settings, &both).unwrap();
            assert!(look_up(&rules, "10.1.0.1", 443) & rule::FAIL_CLOSED != 0);
        }
    }

    #[test]
    fn a_circuit_has_no_say_over_what_others_claim() {
        let mut numbers = CircuitNumber::all();
        let (one, two) = (numbers.next(), numbers.next());
        let with = |circuit, text, port| Claim {
            circuit,
            ..claim(text, port)
        };
        let claims = Claims {
            nets: vec![
                with(one, "10.1.0.0/16", None),
                with(one, "10.1.5.5/32", Some(443)),
                claim("10.1.2.3/32", None),
                claim("10.1.2.4/32", Some(80)),
                with(two, "10.2.0.1/32", None),
                claim("10.2.0.1/32", None),
                with(two, "10.3.0.0/24", None),
                with(one, "10.3.0.7/32", None),
                claim("10.4.0.0/16", None),
                with(two, "10.4.1.0/24", None),
            ],
            any_names: true,
        };
        let rules = compile(&Settings::default(), &claims).unwrap();
        let circuit = |ip, port| look_up(&rules, ip, port) >> rule::CIRCUIT_SHIFT;
        for (ip, port, wanted) in [
            ("10.1.9.9", 80, 1),
            ("10.1.5.5", 443, 1),
            ("10.1.2.3", 80, 0),
            ("10.1.2.4", 80, 0),
            ("10.1.2.4", 443, 1),
            ("10.2.0.1", 80, 0),
            ("10.3.0.1", 80, 2),
            ("10.3.0.7", 80, 0),
            ("10.4.1.1", 80, 0),
            ("10.9.0.1", 80, 0),
        ] {
            assert_eq!(circuit(ip, port), wanted, "{ip}:{port}");
        }
        let out_of_scope = Settings {
            exclude: scope(&[], &["10.1.0.0/16"]),
            ..Settings::default()
        };
        let rules = compile(&out_of_scope, &claims).unwrap();
        assert_eq!(look_up(&rules, "10.1.9.9", 80), rule::BYPASS);
    }

    #[test]
    fn more_rules_than_fit_are_refused() {
        let nets = (0..300_u16)
            .map(|i| {
                let ip = IpAddr::from(Ipv4Addr::from_bits(i.into()));
                Claim::new(ip.into(), None)
            })
            .chain((1..300).map(|port| claim("10.0.0.0/8", Some(port))));
        let claims = Claims {
            nets: nets.collect(),
            any_names: false,
        };
        let refused = compile(&Settings::default(), &claims).unwrap_err();
        assert_eq!(refused.available, 32_768);
        assert!(refused.needed > refused.available);
    }

    fn any_net() -> impl Strategy<Value = IpNet> {
        // Few bits differ, so that nets nest and meet the addresses asked for.
        prop_oneof![
            (0..4_u32, 0..=32_u8).prop_map(|(ip, length)| {
                Ipv4Net::new_assert(Ipv4Addr::from_bits(ip << 30 | ip), length).into()
            }),
            (0..4_u128, 0..=128_u8).prop_map(|(ip, length)| {
                Ipv6Net::new_assert(Ipv6Addr::from_bits(ip << 126 | ip), length).into()
            }),
        ]
    }

    fn any_scope() -> impl Strategy<Value = Scope> {
        (
            prop::collection::vec(1..4_u16, 0..2),
            prop::collection::vec(any_net(), 0..3),
        )
            .prop_map(|(ports, cidrs)| Scope { ports, cidrs })
    }

    fn any_claim() -> impl Strategy<Value = Claim> {
        let circuit = prop::option::of(0..2_usize);
        (any_net(), prop::option::of(1..4_u16), circuit).prop_map(|(net, port, circuit)| Claim {
            circuit: circuit.and_then(|number| CircuitNumber::all().nth(number)),
            ..Claim::new(net, port)
        })
    }

    proptest! {
        /// The table says of every address what the policy says of it alone.
        #[test]
        fn the_table_is_the_policy(
            include in any_scope(),
            exclude in any_scope(),
            nets in prop::collection::vec(any_claim(), 0..4),
            target in any_net(),
            port in 1..5_u16,
        ) {
            let settings = Settings { include, exclude, ..Settings::default() };
            let claims = Claims { nets, any_names: false };
            let rules = compile(&settings, &claims).unwrap();
            let host = IpNet::from(target.addr());
            let alone = decide(&settings, &claims, host, Some(port));
            prop_assert_eq!(look_up(&rules, &target.addr().to_string(), port), alone);
        }
    }
}
