//! A shard on virtual time, between callers and endpoints that follow a script.
//!
//! All of the proxy is the real one, from the accepted connection to the dial:
//! what is scripted are the other ends of its sockets, which belong to the same
//! thread. So nothing happens by chance, and an hour takes a millisecond.

mod caller;
mod endpoint;
mod message;

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use caller::{Answer, Caller, accepted_client};
pub(crate) use endpoint::{Connect, Deed, Endpoint};

use crate::clock::virtual_time;
use crate::proxy::context::Context;
use crate::proxy::generation::Generation;
use crate::proxy::memory::{Limit, Memory};
use crate::ring::{self, Backend, Options, timer};
use crate::route::settings::{Claim, Endpoints, Policies, Protocol, Settings, Upstream};
use crate::telemetry::{AttemptOutcome, Direction, Registry, RetryCause, Telemetry, UpstreamIndex};
use crate::upstream::dial::{Dialer, OwnAddresses};
use crate::upstream::pool::Pools;
use crate::upstream::shared::Shared;

/// The host that the upstream claims.
pub(crate) const HOST: &str = "up.test";

/// No scenario takes longer, on its own clock.
const HUNG_AFTER: Duration = Duration::from_secs(3_600);

/// A shard with one upstream.
pub(crate) struct World {
    /// The shard's state.
    pub(crate) context: Rc<Context>,
    /// The upstream's endpoints, in their order.
    pub(crate) endpoints: Vec<Rc<Endpoint>>,
    /// What all shards share of the upstream.
    pub(crate) shared: Arc<Shared>,
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
    let _virtual = virtual_time::begin(seed);
    let options = Options {
        backend: Backend::Epoll,
        shard: 0,
        spin: ring::Spin::Never,
    };
    let played = ring::run(options, async move {
        let played = async {
            let world = scenario(World::new(policies, endpoints)).await;
            world.wind_up().await;
        };
        let in_time = timer::timeout(HUNG_AFTER, played).await.is_ok();
        (in_time, ring::task_panics())
    });
    let (in_time, panics) = played.expect("epoll works");
    assert!(in_time, "the scenario hangs");
    assert_eq!(panics, 0, "a task panicked");
}

impl World {
    fn new(policies: Policies, endpoints: usize) -> Self {
        let endpoints: Vec<_> = (0..endpoints).map(Endpoint::new).collect();
        let addresses = endpoints.iter().map(|endpoint| endpoint.address.into());
        let upstream = Upstream {
            name: "up".into(),
            claims: vec![Claim::Name {
                host: HOST.into(),
                port: None,
            }],
            endpoints: Endpoints::Static(addresses.collect()),
            protocol: Protocol::Http1,
            policies,
        };
        let settings = Settings {
            upstreams: vec![Arc::new(upstream)],
            ..Settings::default()
        };
        let generation = Generation::new(settings, &Registry::default(), None);
        let shared = generation.target(0).shared;
        let dialer = Dialer::new(OwnAddresses::default(), Vec::new());
        dialer.dial_through(endpoint::network(endpoints.clone()));
        let context = Context::new(
            0,
            Arc::new(generation),
            Pools::new(0, Rc::new(dialer)),
            Rc::new(Telemetry::default()),
            Arc::new(Memory::new(1, Limit::None)),
        );
        Self {
            context,
            endpoints,
            shared,
        }
    }

    /// A new connection of a caller to an explicit listener.
    pub(crate) fn caller(&self) -> Caller {
        Caller::new(&self.context)
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
        Counted {
            requests,
            attempts: attempts.filter(|(_, count)| *count > 0).collect(),
            retries,
            bytes: [Direction::Sent, Direction::Received].map(|way| cells.bytes(way)),
        }
    }

    fn label(&self) -> UpstreamIndex {
        self.shared.label
    }

    /// All callers have left: nothing is in flight any more, and each connection
    /// that is open stands idle.
    async fn wind_up(self) {
        while self.context.connections.get() > 0 {
            timer::sleep(Duration::from_millis(100)).await;
        }
        let shared = &self.shared;
        assert_eq!(shared.requests.count(), 0, "requests in flight");
        assert_eq!(shared.permits.waiting(), 0, "waiters");
        assert_eq!(shared.permits.in_use(), shared.idle(), "permits in use");
        let tries: u64 = self.counted().attempts.iter().map(|(_, n)| n).sum();
        assert!(tries >= self.heard() as u64, "a try was not counted");
    }
}
