//! What one claimed host or network means at each port.

/// Upstreams by port; a claim with a port wins over one without.
#[derive(Debug, Default)]
pub(super) struct Ports {
    any: Option<usize>,
    /// Sorted by port.
    exact: Vec<(u16, usize)>,
}

impl Ports {
    /// Adds a claim. The first of two equal ones stays.
    pub(super) fn insert(&mut self, port: Option<u16>, upstream: usize) {
        match port {
            None => {
                self.any.get_or_insert(upstream);
            }
            Some(port) => {
                if let Err(at) = self.exact.binary_search_by_key(&port, |entry| entry.0) {
                    self.exact.insert(at, (port, upstream));
                }
            }
        }
    }

    pub(super) fn find(&self, port: u16) -> Option<usize> {
        match self.exact.binary_search_by_key(&port, |entry| entry.0) {
            Ok(at) => Some(self.exact[at].1),
            Err(_) => self.any,
        }
    }
}
