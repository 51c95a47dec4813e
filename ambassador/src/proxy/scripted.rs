//! A shard on virtual time, between callers and endpoints that follow a script.
//!
//! All of the proxy is the real one, from the accepted connection to the dial:
//! what is scripted are the other ends of its sockets, which belong to the same
//! thread. So nothing happens by chance, and an hour takes a millisecond.

mod caller;
mod endpoint;
pub(crate) mod http2;
mod log;
mod message;

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use caller::{Answer, Caller, Link, accepted_client};
pub(crate) use endpoint::{Connect, Deed, Endpoint, Heard};
pub(crate) use message::{End, Wire, client_hello};

use crate::addr::OriginalDst;
use crate::clock::virtual_time;
use crate::credential::settings::Auth;
use crate::proxy::context::Context;
use crate::proxy::generation::Generation;
use crate::proxy::listener::Entry;
use crate::proxy::memory::{Limit, Memory};
use crate::ring::{self, Backend, Options, timer};
use crate::route::settings::{Claim, Endpoints, Policies, Protocol, Settings, Upstream};
use crate::telemetry::{
    AttemptOutcome, Direction, Registry, RetryCause, TcpOutcome, Telemetry, UpstreamIndex,
};
use crate::upstream::dial::{Dialer, OwnAddresses};
use crate::upstream::pool::Pools;
use crate::upstream::shared::Shared;
use crate::workload::Family;

/// The host that the upstream claims.
pub(crate) const HOST: &str = "up.test";

/// An address that the upstream claims.
pub(crate) const ADDRESS: &str = "10.1.0.1:443";

/// No scenario takes longer, on its own clock.
const HUNG_AFTER: Duration = Duration::from_secs(1_000);

/// How a world is made.
#[derive(Clone, Default)]
pub(crate) struct Plan {
    /// Whether the endpoints are addresses of a name, of each family in turn.
    pub(crate) is_named: bool,
    /// How many endpoints the upstream has.
    pub(crate) endpoints: usize,
    /// How its requests are treated.
    pub(crate) policies: Policies,
    /// What is spoken to it.
    pub(crate) protocol: Protocol,
    /// Where its credential comes from.
    pub(crate) auth: Option<Auth>,
    /// What stands in for placeholders.
    pub(crate) placeholders: Vec<Arc<Auth>>,
    /// What else is configured.
    pub(crate) settings: Settings,
}

/// A shard with one upstream.
pub(crate) struct World {
    /// The shard's state.
    pub(crate) context: Rc<Context>,
    /// The upstream's endpoints, in their order.
    pub(crate) endpoints: Vec<Rc<Endpoint>>,
    /// What all shards share of the upstream.
    pub(crate) shared: Arc<Shared>,
    log: log::Log,
}

/// What was counted for the upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Requests by the status that their callers got; 0: none.
    pub(crate) requests: Vec<(u16, u64)>,
    /// Tries by how they ended.
    pub(crate) attempts: Vec<(&'static str, u64)>,
    /// Tries after the first by their cause.
    pub(crate) retries: Vec<(&'static str, u64)>,
    /// Connections without requests by how they ended.
    pub(crate) relays: Vec<(&'static str, u64)>,
    /// Bytes of callers, and bytes for them.
    pub(crate) bytes: [u64; 2],
}

/// Runs a scenario against an upstream of so many endpoints, with random bits
/// from `seed`. Afterwards all callers leave, and nothing may be left behind.
pub(crate) fn play<F: Future<Output = World> + 'static>(
    seed: u64,
    policies: Policies,
    endpoints: usize,
    scenario: impl FnOnce(World) -> F + 'static,
) {
    let plan = Plan {
        endpoints,
        policies,
        protocol: Protocol::Http1,
        ..Plan::default()
    };
    play_in(seed, plan, scenario);
}

/// The same in a world of any kind.
pub(crate) fn play_in<F: Future<Output = World> + 'static>(
    seed: u64,
    plan: Plan,
    scenario: impl FnOnce(World) -> F + 'static,
) {
    let _virtual = virtual_time::begin(seed);
    let options = Options {
        backend: Backend::Epoll,
        shard: 0,
        spin: ring::Spin::Never,
    };
    let played = ring::run(options, async move {
        let played = async {
            let world = scenario(World::new(plan)).await;
            world.wind_up().await;
        };
        let in_time = timer::timeout(HUNG_AFTER, played).await.is_ok();
        (in_time, ring::task_panics())
    });
    let (in_time, panics) = played.expect("epoll works");
    assert!(in_time, "the scenario hangs");
    assert_eq!(panics, 0, "a task panicked");
}

/// How long to wait before the next look at something: soon at first, and then
/// seldom, so that an hour of it is over soon.
fn waits() -> impl Iterator<Item = Duration> {
    (1..).map(|look| Duration::from_millis(1 + look / 100 * 100))
}

impl World {
    fn new(plan: Plan) -> Self {
        let family = |number| match plan.is_named && number % 2 == 1 {
            true => Family::V6,
            false => Family::V4,
        };
        let endpoints: Vec<_> = (0..plan.endpoints)
            .map(|number| Endpoint::new(number, family(number)))
            .collect();
        let addresses = endpoints.iter().map(|endpoint| endpoint.address.into());
        let addresses: Vec<_> = addresses.collect();
        let claims = vec![
            Claim::Name {
                host: HOST.into(),
                port: None,
            },
            Claim::Net {
                net: "10.1.0.0/16".parse().expect("a network"),
                port: None,
            },
        ];
        let upstream = Upstream {
            tls: None,
            name: "up".into(),
            claims,
            endpoints: match plan.is_named {
                true => Endpoints::Dns {
                    name: HOST.into(),
                    port: 80,
                },
                false => Endpoints::Static(addresses.clone()),
            },
            protocol: plan.protocol,
            auth: plan.auth.map(Arc::new),
            placeholders: plan.placeholders,
            on_failure: None,
            policies: plan.policies,
        };
        let mut settings = plan.settings;
        settings.upstreams.insert(0, Arc::new(upstream));
        let registry = Arc::new(Registry::default());
        let generation = Generation::new(settings, &registry, None);
        let shared = generation.target(0).shared;
        shared.endpoints.publish(addresses, None);
        let dialer = Dialer::new(OwnAddresses::default(), Vec::new());
        dialer.dial_through(endpoint::network(endpoints.clone()));
        let (sink, log) = log::begin(registry);
        let context = Context::new(
            0,
            Arc::new(generation),
            Pools::new(0, Rc::new(dialer)),
            Rc::new(Telemetry::new(Some(sink))),
            Arc::new(Memory::new(1, Limit::None)),
        );
        Self {
            context,
            endpoints,
            shared,
            log,
        }
    }

    /// A new connection of a caller to an explicit listener.
    pub(crate) fn caller(&self) -> Caller {
        Caller::new(&self.context, Link::Unix, Entry::Http, None)
    }

    /// The same over TCP.
    pub(crate) fn caller_over_tcp(&self) -> Caller {
        Caller::new(&self.context, Link::Tcp, Entry::Http, None)
    }

    /// A new connection to a listener that relays to the upstream.
    pub(crate) fn relayed(&self) -> Caller {
        Caller::new(&self.context, Link::Unix, Entry::Tcp("up".into()), None)
    }

    /// A new connection that was captured on its way to `original`.
    pub(crate) fn captured(&self, original: &str) -> Caller {
        let original = OriginalDst(original.parse().expect("an address"));
        Caller::new(&self.context, Link::Unix, Entry::Captured, Some(original))
    }

    /// How many connections all endpoints have accepted.
    pub(crate) fn connected(&self) -> usize {
        self.endpoints.iter().map(|one| one.connected.get()).sum()
    }

    /// Until all callers have left, and been served.
    pub(crate) async fn until_all_have_left(&self) {
        for wait in waits() {
            if self.context.connections.get() == 0 {
                return;
            }
            timer::sleep(wait).await;
        }
    }

    /// What the access log says so far.
    pub(crate) fn log(&self) -> Vec<log::Line> {
        self.log.lines()
    }

    /// What `GET /` by a new caller is answered.
    pub(crate) async fn get(&self) -> Answer {
        let mut caller = self.caller();
        caller.get().await.expect("there is an answer")
    }

    /// How many requests all endpoints have got.
    pub(crate) fn heard(&self) -> usize {
        let heard = self.endpoints.iter().map(|one| one.heard.borrow().len());
        heard.sum()
    }

    /// What was counted for the upstream so far.
    pub(crate) fn counted(&self) -> Counted {
        let snapshot = self.context.telemetry.cells.snapshot();
        let Some(cells) = snapshot.upstream(self.label()) else {
            return Counted::default();
        };
        let mut requests: Vec<_> = cells
            .requests()
            .map(|(key, count)| (key.status, count))
            .collect();
        requests.sort_unstable();
        let attempts = AttemptOutcome::ALL
            .iter()
            .map(|outcome| (outcome.as_str(), cells.attempts(*outcome)));
        let retries = RetryCause::ALL
            .iter()
            .map(|cause| (cause.as_str(), cells.retries(*cause)));
        let mut retries: Vec<_> = retries.filter(|(_, count)| *count > 0).collect();
        retries.sort_unstable();
        let relays = TcpOutcome::ALL
            .iter()
            .map(|outcome| (outcome.as_str(), cells.tcp_connections(*outcome)));
        Counted {
            requests,
            attempts: attempts.filter(|(_, count)| *count > 0).collect(),
            retries,
            relays: relays.filter(|(_, count)| *count > 0).collect(),
            bytes: [Direction::Sent, Direction::Received].map(|way| cells.bytes(way)),
        }
    }

    fn label(&self) -> UpstreamIndex {
        self.shared.label
    }

    /// All callers have left: nothing is in flight any more, and each connection
    /// that is open stands idle.
    async fn wind_up(self) {
        self.until_all_have_left().await;
        let shared = &self.shared;
        assert_eq!(shared.requests.count(), 0, "requests in flight");
        assert_eq!(shared.permits.waiting(), 0, "waiters");
        assert_eq!(shared.permits.in_use(), shared.idle(), "permits in use");
        assert_eq!(shared.health.awaiting.count(), 0, "requests that wait");
        self.log
            .agrees_with(&self.context.telemetry.cells.snapshot());
        let tries: u64 = self.counted().attempts.iter().map(|(_, n)| n).sum();
        assert!(tries >= self.heard() as u64, "a try was not counted");
    }
}
