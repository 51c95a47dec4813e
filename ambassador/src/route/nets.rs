//! Claims by address: one hash per prefix length in use, the longest first.

use std::net::IpAddr;

use foldhash::{HashMap, HashMapExt};
use ipnet::IpNet;

use super::ports::Ports;

/// Finds the upstream that claims an address.
#[derive(Debug, Default)]
pub(super) struct NetClaims {
    v4: Lengths,
    v6: Lengths,
}

/// The networks of one family, by falling prefix length.
#[derive(Debug, Default)]
struct Lengths(Vec<Length>);

#[derive(Debug)]
struct Length {
    prefix_len: u8,
    nets: HashMap<u128, Ports>,
}

impl NetClaims {
    pub(super) fn insert(&mut self, net: IpNet, port: Option<u16>, upstream: usize) {
        let family = match net {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        };
        family.insert(bits(net.addr()), net.prefix_len(), port, upstream);
    }

    /// The longest prefix that has a claim for the port decides.
    pub(super) fn find(&self, ip: IpAddr, port: u16) -> Option<usize> {
        let ip = ip.to_canonical();
        let family = match ip {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        let bits = bits(ip);
        family.0.iter().find_map(|length| {
            let net = bits & mask(length.prefix_len);
            length.nets.get(&net)?.find(port)
        })
    }
}

impl Lengths {
    fn insert(&mut self, bits: u128, prefix_len: u8, port: Option<u16>, upstream: usize) {
        let order = |length: &Length| prefix_len.cmp(&length.prefix_len);
        let at = match self.0.binary_search_by(order) {
            Ok(at) => at,
            Err(at) => {
                let nets = HashMap::new();
                self.0.insert(at, Length { prefix_len, nets });
                at
            }
        };
        let net = bits & mask(prefix_len);
        self.0[at]
            .nets
            .entry(net)
            .or_default()
            .insert(port, upstream);
    }
}

/// The address with its first bit as the highest, so that both families are
/// masked alike.
fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn mask(prefix_len: u8) -> u128 {
    u128::MAX
        .checked_shl(128 - u32::from(prefix_len))
        .unwrap_or(0)
}
