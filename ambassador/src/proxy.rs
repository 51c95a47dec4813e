//! What happens to an accepted connection: sniffed, routed, forwarded.

pub mod accepted;
pub mod adopted;
pub mod client;
pub mod context;
pub mod drain;
pub mod exchange;
pub mod forward;
pub mod generation;
pub mod http1;
pub mod tunnel;
pub mod way;

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::accepted::{self, Entry};
    use super::client::Client;

    /// Most connections are idle most of the time, so this is what a thousand
    /// clients cost, a thousandfold.
    const CONNECTION_BYTES_MAX: usize = 1_408;

    fn size_of_future<F: Future>(_: impl FnOnce(Client, Entry) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_stays_small() {
        let size = size_of_future(accepted::serve);
        assert!(size <= CONNECTION_BYTES_MAX, "{size} bytes");
    }
}
