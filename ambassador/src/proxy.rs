//! What happens to an accepted connection: sniffed, routed, forwarded.

pub(crate) mod accepted;
mod admission;
pub(crate) mod adopted;
pub(crate) mod after;
pub(crate) mod answer;
pub(crate) mod attempt;
mod authentication;
mod body;
mod body_wait;
pub(crate) mod bound;
pub(crate) mod caller;
mod caller_end;
pub(crate) mod client;
pub(crate) mod client_certificate;
mod clients;
pub(crate) mod context;
pub(crate) mod deadlines;
mod delivered;
mod delivery;
pub(crate) mod departure;
mod download;
mod downstream;
pub(crate) mod drain;
pub(crate) mod exchange;
pub(crate) mod failure;
mod fault;
mod first_bytes;
pub(crate) mod forward;
pub(crate) mod generation;
pub(crate) mod heads;
pub(crate) mod http1;
mod http2;
mod inner;
mod judgement;
mod labels;
mod leg;
pub(crate) mod listener;
pub(crate) mod memory;
mod outbound;
mod paced;
mod pick;
mod post;
mod presented;
pub(crate) mod progress;
mod race;
pub(crate) mod reach;
mod refusal;
pub(crate) mod renewal;
pub(crate) mod replay;
pub(crate) mod reply;
pub(crate) mod request_facts;
mod retries;
pub(crate) mod room;
pub(crate) mod routing;
#[cfg(test)]
mod scripted;
mod second;
mod sending;
mod server_connection;
pub(crate) mod server_first;
mod shortage;
mod signed_chunks;
mod signing;
mod slot;
mod substitution;
pub(crate) mod switch;
pub(crate) mod trailers;
mod tries;
pub(crate) mod tunnel;
mod tunnel_end;
mod upload;
mod verdict;
mod websocket;
mod whole_body;

use crate::ring;

/// Frees what a shard keeps for its next requests: after a burst it is strewn
/// over a heap that is free otherwise.
pub(crate) fn drop_spares() {
    http1::drop_spares();
    http2::drop_spares();
    outbound::drop_spares();
    ring::drop_spares();
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::Duration;

    use super::accepted;
    use super::client::Client;
    use super::context::{Context, Scratch};
    use super::downstream::Downstream;
    use super::forward;
    use super::generation::Generation;
    use super::listener::Entry;
    use super::memory::{Limit, Memory};
    use crate::ring::{self, Backend, Chunk, Options, timer};
    use crate::route::settings::Settings;
    use crate::telemetry::{Registry, Telemetry};
    use crate::upstream::dial::{Dialer, OwnAddresses};
    use crate::upstream::pool::Pools;

    /// A shard's state; what nobody claims goes to its original destination.
    pub(super) fn context() -> Rc<Context> {
        let generation = Generation::new(Settings::default(), &Registry::default(), None);
        let dialer = Dialer::new(OwnAddresses::default(), Vec::new());
        let pools = Pools::new(0, Rc::new(dialer));
        let telemetry = Rc::new(Telemetry::default());
        let memory = Arc::new(Memory::new(1, Limit::None));
        Context::new(0, Arc::new(generation), pools, telemetry, memory)
    }

    #[test]
    fn a_task_that_panics_is_counted() {
        let (backend, shard) = (Backend::Epoll, 0);
        let counted = ring::run(
            Options {
                backend,
                shard,
                spin: ring::Spin::Never,
            },
            async {
                let context = context();
                ring::spawn(async { panic!("a test's panic") });
                timer::sleep(Duration::from_millis(1)).await;
                context.snapshot().task_panics()
            },
        );
        assert_eq!(counted.unwrap(), 1);
    }

    /// Most connections are idle most of the time, so this is what a thousand
    /// clients cost, a thousandfold.
    const CONNECTION_BYTES_MAX: usize = 648;

    fn size_of_future<F: Future>(_: impl FnOnce(Box<Client>, Entry) -> F) -> usize {
        size_of::<F>()
    }

    /// What a request in flight costs beside its buffers: kept by the shard for
    /// the next one.
    const REQUEST_BYTES_MAX: usize = 6_656;

    fn size_of_request<'a, F: Future>(
        _: impl FnOnce(&'a mut Downstream<'a>, &'a mut Scratch, Chunk) -> F,
    ) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_request_stays_small() {
        let size = size_of_request(forward::forward);
        assert!(size <= REQUEST_BYTES_MAX, "{size} bytes");
    }

    #[test]
    fn a_connection_stays_small() {
        let size = size_of::<Client>() + size_of_future(accepted::serve);
        assert!(size <= CONNECTION_BYTES_MAX, "{size} bytes");
    }
}
