//! The pools of one shard on virtual time, before endpoints that only accept.

use std::future::{Future, poll_fn};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::task::Poll;

use super::*;
use crate::addr::EndpointAddr;
use crate::clock::virtual_time;
use crate::policy::limits;
use crate::ring::timer;
use crate::ring::{Backend, Options, Spin, StreamId};
use crate::route::settings;
use crate::telemetry::UpstreamIndex;
use crate::transport::Transport;
use crate::upstream::connection::ConnectionUse;
use crate::upstream::dial::{Namespace, OwnAddresses};
use crate::upstream::key::{self, Identity};
use crate::upstream::limits::Limits;

mod ahead;
mod blocked;
mod choice;
mod kept;
mod streams;
mod waiting;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Shard 3, an upstream, and the other ends of the connections to it.
struct Shard {
    pools: Rc<Pools>,
    shared: Arc<Shared>,
    /// By the order of the dials; `None`: the endpoint has closed it.
    peers: Rc<RefCell<Vec<Option<UnixStream>>>>,
    /// How many of the next dials are refused.
    refuses: Rc<Cell<u32>>,
}

fn endpoint(number: u8) -> EndpointAddr {
    EndpointAddr(([10, 0, 0, number], 80).into())
}

fn key(number: u8) -> PoolKey {
    PoolKey::http1(Namespace::default(), endpoint(number), Identity::ANONYMOUS)
}

/// A pool of so many connections, with room for two that wait.
fn of(max_connections: u32) -> limits::Pool {
    limits::Pool {
        max_connections: Some(max_connections),
        max_pending: 2,
        ..limits::Pool::default()
    }
}

/// Runs a test on a shard whose upstream has these limits.
fn on_a_shard<F: Future<Output = ()> + 'static>(
    limits: limits::Pool,
    test: impl FnOnce(Shard) -> F + 'static,
) {
    let _virtual = virtual_time::begin(1);
    let options = Options {
        backend: Backend::Epoll,
        shard: 3,
        spin: Spin::Never,
    };
    let panics = ring::run(options, async move {
        test(Shard::new(&limits)).await;
        ring::task_panics()
    });
    assert_eq!(panics.unwrap(), 0);
}

impl Shard {
    fn new(limits: &limits::Pool) -> Self {
        let dialer = Rc::new(Dialer::new(OwnAddresses::default(), Vec::new()));
        let peers = Rc::new(RefCell::new(Vec::new()));
        let refuses = Rc::new(Cell::new(0_u32));
        let (accepted, refused) = (Rc::clone(&peers), Rc::clone(&refuses));
        dialer.dial_through(Rc::new(move |_| {
            if let Some(fewer) = refused.get().checked_sub(1) {
                refused.set(fewer);
                let error = std::io::ErrorKind::ConnectionRefused.into();
                return Box::pin(std::future::ready(Err(error)));
            }
            let (near, far) = UnixStream::pair().unwrap();
            accepted.borrow_mut().push(Some(far));
            Box::pin(std::future::ready(Transport::from_connected(near.into())))
        }));
        let in_force = Limits::new(
            limits,
            &limits::Timeouts::default(),
            limits::Http2::default(),
        );
        let shared = Shared::new(UpstreamIndex::UNMATCHED, Arc::new(in_force));
        shared.permits.set_cap(limits.max_connections);
        Self {
            pools: Pools::new(3, dialer),
            shared: Arc::new(shared),
            peers,
            refuses,
        }
    }

    async fn checkout(&self, number: u8, freshness: Freshness) -> Result<Lease, CheckoutError> {
        self.checkout_by(Peer::Local, number, freshness).await
    }

    async fn checkout_by(
        &self,
        peer: Peer,
        number: u8,
        freshness: Freshness,
    ) -> Result<Lease, CheckoutError> {
        let wanted = Checkout {
            key: key(number),
            freshness,
            peer,
            server_name: None,
        };
        let opening = self.shared.limits.opening();
        let leased = self.pools.checkout(&self.shared, opening, wanted).await;
        leased.map(Leased::connection)
    }

    /// A connection to endpoint `number`, where one can be had at once.
    async fn lease(&self, number: u8) -> Lease {
        match self.checkout(number, Freshness::Any).await {
            Ok(lease) => lease,
            Err(error) => panic!("{error:?}"),
        }
    }

    /// So many that stand idle, oldest first.
    async fn idle(&self, number: u8, count: usize) -> Vec<StreamId> {
        let mut leases = Vec::new();
        for _ in 0..count {
            leases.push(self.lease(number).await);
        }
        let ids = leases.iter().map(|lease| lease.stream.id()).collect();
        leases.into_iter().for_each(give_back);
        ids
    }

    /// Open connections, and how many of them are idle.
    fn counts(&self) -> (u32, u32) {
        (self.shared.permits.in_use(), self.shared.idle())
    }

    fn dials(&self) -> usize {
        self.peers.borrow().len()
    }

    /// The endpoint closes the connection of a dial.
    fn close(&self, dial: usize) {
        self.peers.borrow_mut()[dial] = None;
    }

    /// Other limits are in force.
    fn limit(&self, limits: &limits::Pool) {
        let timeouts = limits::Timeouts::default();
        self.shared
            .limits
            .set(limits, &timeouts, limits::Http2::default());
    }

    /// What its upstream speaks is known.
    fn speak(&self, protocol: settings::Protocol) {
        let upstream = settings::Upstream {
            name: "web".into(),
            claims: Vec::new(),
            endpoints: settings::Endpoints::Original,
            protocol,
            tls: None,
            auth: None,
            placeholders: Vec::new(),
            on_failure: None,
            policies: settings::Policies::default(),
        };
        self.shared.in_force.store(Some(Arc::new(upstream)));
    }

    fn publish(&self, numbers: &[u8]) {
        let list = numbers.iter().map(|number| endpoint(*number));
        let list = list.map(settings::Endpoint::from);
        self.shared.endpoints.publish(list, None);
    }
}

/// Its exchange is complete.
fn give_back(mut lease: Lease) {
    lease.complete();
    drop(lease);
}

/// Whether a future is not ready yet; it has begun now.
async fn is_pending(future: &mut Pin<&mut impl Future>) -> bool {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}
