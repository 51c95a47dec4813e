//! What one claimed host or network, or one kind of route, means at each port.

/// Upstreams or routes by port, as numbers.
#[derive(Debug, Default)]
pub(super) struct Ports {
    any: Option<usize>,
    /// Sorted by port.
    exact: Vec<(u16, usize)>,
}

impl Ports {
    /// Adds a number. The first of two for the same port stays.
    pub(super) fn insert(&mut self, port: Option<u16>, number: usize) {
        match port {
            None => {
                self.any.get_or_insert(number);
            }
            Some(port) => {
                if let Err(at) = self.exact.binary_search_by_key(&port, |entry| entry.0) {
                    self.exact.insert(at, (port, number));
                }
            }
        }
    }

    /// What is there for this port alone, else for any: a claim with a port
    /// wins over one without.
    pub(super) fn find(&self, port: u16) -> Option<usize> {
        self.exact(port).or(self.any)
    }

    /// The least number for this port: routes win by their place in the file.
    pub(super) fn least(&self, port: u16) -> Option<usize> {
        earlier(self.any, self.exact(port))
    }

    fn exact(&self, port: u16) -> Option<usize> {
        let at = self.exact.binary_search_by_key(&port, |entry| entry.0);
        Some(self.exact[at.ok()?].1)
    }
}

/// The number that is less, where there are two.
pub(super) fn earlier(one: Option<usize>, other: Option<usize>) -> Option<usize> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        _ => one.or(other),
    }
}
