//! The variants: what stands between client and upstream.

use serde::Serialize;

use crate::peers;
use crate::protocol::Protocol;

/// What stands between client and upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Variant {
    /// Nothing.
    Direct,
    /// The ambassador, called at its listener.
    Listener,
    /// The same on epoll.
    ListenerEpoll,
    /// The same with a shard that may run on every CPU; the others are bound to
    /// the first.
    ListenerUnpinned,
    /// The listener of a shard that spins.
    ListenerSpinning,
    /// The listener, with every policy on.
    EveryPolicy,
    /// The listener, with every policy off that can be.
    NoPolicy,
    /// The ambassador, by eBPF.
    Ebpf,
    /// The same on epoll.
    EbpfEpoll,
    /// eBPF in force, but not for the upstream: the kernel connects straight.
    EbpfExcluded,
    /// The ambassador behind REDIRECT rules of iptables-nft.
    IptablesNft,
    /// The same of iptables-legacy.
    IptablesLegacy,
    /// The listener, with a thousand upstreams.
    ManyUpstreams,
    /// The listener, with a thousand routes.
    ManyRoutes,
    /// The listener with one shard, before two upstream processes.
    OneShard,
    /// The same with two shards.
    TwoShards,
    /// nginx.
    Nginx,
    /// HAProxy.
    Haproxy,
    /// Envoy.
    Envoy,
    /// The ambassador, with TLS on a listener and to upstreams.
    ListenerTls,
    /// nginx with the same.
    NginxTls,
    /// HAProxy with the same.
    HaproxyTls,
    /// Envoy with the same.
    EnvoyTls,
    /// A relay of bytes on the ambassador's own ring: the floor.
    Relay,
    /// hyper on tokio.
    TokioHyper,
    /// A forwarder on tokio-uring.
    TokioUring,
}

impl Variant {
    /// All of them, in the order of the table.
    pub fn all() -> [Self; 26] {
        [
            Self::Direct,
            Self::Listener,
            Self::ListenerEpoll,
            Self::ListenerUnpinned,
            Self::ListenerSpinning,
            Self::EveryPolicy,
            Self::NoPolicy,
            Self::Ebpf,
            Self::EbpfEpoll,
            Self::EbpfExcluded,
            Self::IptablesNft,
            Self::IptablesLegacy,
            Self::Nginx,
            Self::Haproxy,
            Self::Envoy,
            Self::Relay,
            Self::TokioHyper,
            Self::TokioUring,
            Self::ManyUpstreams,
            Self::ManyRoutes,
            Self::OneShard,
            Self::TwoShards,
            Self::ListenerTls,
            Self::NginxTls,
            Self::HaproxyTls,
            Self::EnvoyTls,
        ]
    }

    /// What the report calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Listener => "ambassador listener",
            Self::ListenerEpoll => "ambassador listener, epoll",
            Self::ListenerUnpinned => "ambassador listener, unpinned",
            Self::ListenerSpinning => "ambassador listener, spinning",
            Self::EveryPolicy => "ambassador, every policy",
            Self::NoPolicy => "ambassador, no policy",
            Self::Ebpf => "ambassador eBPF",
            Self::EbpfEpoll => "ambassador eBPF, epoll",
            Self::EbpfExcluded => "ambassador eBPF, excluded",
            Self::IptablesNft => "ambassador iptables-nft",
            Self::IptablesLegacy => "ambassador iptables-legacy",
            Self::ManyUpstreams => "ambassador, 1000 upstreams",
            Self::ManyRoutes => "ambassador, 1000 routes",
            Self::OneShard => "ambassador, 1 shard",
            Self::TwoShards => "ambassador, 2 shards",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::ListenerTls => "ambassador, TLS",
            Self::NginxTls => "nginx, TLS",
            Self::HaproxyTls => "haproxy, TLS",
            Self::EnvoyTls => "envoy, TLS",
            Self::Relay => "bare relay",
            Self::TokioHyper => "tokio + hyper",
            Self::TokioUring => "tokio-uring",
        }
    }

    /// Whether it takes part in every scenario, and not only in those that ask
    /// what it answers.
    pub fn is_general(self) -> bool {
        !matches!(
            self,
            Self::EbpfExcluded
                | Self::ListenerUnpinned
                | Self::ListenerSpinning
                | Self::EveryPolicy
                | Self::NoPolicy
                | Self::OneShard
                | Self::TwoShards
                | Self::ListenerTls
                | Self::NginxTls
                | Self::HaproxyTls
                | Self::EnvoyTls
        )
    }

    /// Whether it has TLS, with certificates of its own.
    pub fn speaks_tls(self) -> bool {
        matches!(
            self,
            Self::ListenerTls | Self::NginxTls | Self::HaproxyTls | Self::EnvoyTls
        )
    }

    /// What the first request to it is, which ends its start.
    pub fn first_protocol(self) -> Protocol {
        match self.speaks_tls() {
            true => Protocol::Mtls,
            false => Protocol::Http1,
        }
    }

    /// Whether it is part of the quick run.
    pub fn is_quick(self) -> bool {
        matches!(
            self,
            Self::Direct
                | Self::Listener
                | Self::Ebpf
                | Self::IptablesNft
                | Self::Nginx
                | Self::Relay
                | Self::ListenerTls
                | Self::NginxTls
        )
    }

    /// Whether it passes bytes on that it does not understand.
    pub fn relays_tcp(self) -> bool {
        !matches!(
            self,
            Self::TokioHyper
                | Self::TokioUring
                | Self::ManyUpstreams
                | Self::ManyRoutes
                | Self::EbpfExcluded
        )
    }

    /// Whether requests pass something on their way.
    pub fn is_on_the_way(self) -> bool {
        !matches!(self, Self::Direct | Self::EbpfExcluded)
    }

    /// Whether it is the ambassador.
    pub fn is_ours(self) -> bool {
        self.ours().is_some()
    }

    /// The rest of the ambassador's configuration.
    pub fn ours(self) -> Option<String> {
        match self {
            Self::ManyUpstreams => Some(peers::many_upstreams()),
            Self::ManyRoutes => Some(peers::many_routes()),
            Self::EbpfExcluded => Some(format!(
                "capture: {{ exclude: {{ cidrs: [10.0.0.0/8] }} }}\n{}",
                peers::upstreams()
            )),
            Self::IptablesNft | Self::IptablesLegacy => Some(format!(
                "capture: {{ mode: iptables }}\n{}",
                peers::upstreams()
            )),
            Self::OneShard | Self::TwoShards => Some(format!(
                "workers: {}\n{}",
                self.shards(),
                peers::two_endpoints()
            )),
            // One for each CPU would be bound.
            Self::ListenerUnpinned => Some(format!("workers: 1\n{}", peers::upstreams())),
            Self::ListenerSpinning => Some(format!("spin: adaptive\n{}", peers::upstreams())),
            Self::ListenerTls => Some(peers::tls::ambassador()),
            Self::EveryPolicy => Some(peers::every_policy()),
            Self::NoPolicy => Some(peers::no_policy()),
            Self::Listener | Self::ListenerEpoll | Self::Ebpf | Self::EbpfEpoll => {
                Some(peers::upstreams())
            }
            _ => None,
        }
    }

    /// The CPUs that its proxy may run on, of so many.
    pub fn cpus(self, machine: usize) -> std::ops::Range<usize> {
        match self {
            Self::ListenerUnpinned => 0..machine,
            _ => 0..self.shards(),
        }
    }

    /// How many shards its proxy has; others have one worker.
    pub fn shards(self) -> usize {
        match self {
            Self::TwoShards => 2,
            _ => 1,
        }
    }

    /// What each of its upstream processes in clear speaks, and on which port it listens.
    pub fn upstreams(self) -> Vec<(Protocol, u16)> {
        match self {
            Self::OneShard | Self::TwoShards => vec![
                (Protocol::Http1, Protocol::Http1.upstream_port()),
                (Protocol::Http1, peers::SECOND_ENDPOINT),
            ],
            _ => {
                let usual = |protocol: Protocol| (protocol, protocol.upstream_port());
                Protocol::CLEAR.map(usual).to_vec()
            }
        }
    }

    /// Whether clients call the upstream's own address.
    pub fn is_transparent(self) -> bool {
        self == Self::Direct || self.captures()
    }

    /// Whether clients are captured.
    pub fn captures(self) -> bool {
        matches!(
            self,
            Self::Ebpf
                | Self::EbpfEpoll
                | Self::EbpfExcluded
                | Self::IptablesNft
                | Self::IptablesLegacy
        )
    }
}
