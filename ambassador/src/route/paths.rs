//! The routes of one host, by path prefix, then method, then port.

use foldhash::HashMap;

use super::ports::{Ports, earlier};

/// Finds the first route for a path, method and port.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// Routes for every path, and for what is none, like `*`.
    any: Methods,
    /// Keyed without a slash at the end.
    prefixes: HashMap<Box<[u8]>, Methods>,
    /// How long prefixes are, each length once, the shortest first.
    lengths: Vec<usize>,
}

/// The routes of one path prefix. Of those with the same method and port only
/// the first is kept, as no other can win.
#[derive(Debug, Default)]
struct Methods {
    any: Ports,
    named: HashMap<Box<[u8]>, Ports>,
}

impl Paths {
    /// Adds a route, after those before it in the file.
    pub(super) fn insert(
        &mut self,
        prefix: Option<&str>,
        methods: &[String],
        port: Option<u16>,
        route: usize,
    ) {
        let routes = match prefix {
            None => &mut self.any,
            Some(prefix) => self.of_prefix(without_slash(prefix.as_bytes())),
        };
        routes.insert(methods, port, route);
    }

    fn of_prefix(&mut self, prefix: &[u8]) -> &mut Methods {
        if let Err(at) = self.lengths.binary_search(&prefix.len()) {
            self.lengths.insert(at, prefix.len());
        }
        self.prefixes.entry(prefix.into()).or_default()
    }

    /// The number of the first route that matches. A query may follow the
    /// path.
    pub(super) fn find(&self, path: &[u8], method: &[u8], port: u16) -> Option<usize> {
        self.above(path)
            .map(|methods| methods.find(method, port))
            .fold(self.any.find(method, port), earlier)
    }

    /// The routes whose prefix is `path` or above it, a prefix ending where a
    /// segment of the path does. Only lengths in use are tried: how many slashes
    /// a client puts into its path does not matter.
    fn above(&self, path: &[u8]) -> impl Iterator<Item = &Methods> {
        let lengths = match path.first() {
            Some(b'/') => self.lengths.as_slice(),
            _ => &[],
        };
        lengths
            .iter()
            .map_while(|length| path.split_at_checked(*length))
            .filter(|(_, rest)| matches!(rest.first(), None | Some(b'/' | b'?')))
            .filter_map(|(prefix, _)| self.prefixes.get(prefix))
    }
}

impl Methods {
    fn insert(&mut self, methods: &[String], port: Option<u16>, route: usize) {
        if methods.is_empty() {
            self.any.insert(port, route);
        }
        for method in methods {
            let ports = self.named.entry(method.as_bytes().into()).or_default();
            ports.insert(port, route);
        }
    }

    fn find(&self, method: &[u8], port: u16) -> Option<usize> {
        let named = self.named.get(method);
        let found = named.and_then(|ports| ports.least(port));
        earlier(self.any.least(port), found)
    }
}

/// A slash at the end of a prefix means nothing.
fn without_slash(prefix: &[u8]) -> &[u8] {
    prefix.strip_suffix(b"/").unwrap_or(prefix)
}
