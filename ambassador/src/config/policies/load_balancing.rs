//! `load_balancing`: a word, or the key of `ring_hash`.

use crate::config::read::{Either, Place, object};
use crate::config::setting::{Layer, Setting, Shown, Value, View, below};
use crate::config::values::{FieldName, choice};
use crate::policy::balance;

choice! {
    /// Which endpoint a request goes to.
    LoadBalancing: balance::LoadBalancing {
        /// In turn.
        RoundRobin = "round_robin" => balance::LoadBalancing::RoundRobin,
        /// Of two random ones, the one with fewer requests.
        LeastRequest = "least_request" => balance::LoadBalancing::LeastRequest,
        /// Of two random ones, the one that is expected to answer sooner.
        PeakEwma = "peak_ewma" => balance::LoadBalancing::PeakEwma,
        /// A random one.
        Random = "random" => balance::LoadBalancing::Random,
    }
}

object! {
    /// Requests that are alike go to the same endpoint.
    #[schemars(extend("required" = ["ring_hash"]))]
    Hashing {
        /// Consistent hashing of one of these. When an endpoint comes, goes or is
        /// ejected, only the requests of that endpoint move.
        ring_hash: HashKey,
    }
}

object! {
    /// What of a request is hashed: `header` or `source`.
    HashKey {
        /// The value of this header; a request without it goes to a random
        /// endpoint.
        header: FieldName [of_requests],
        /// The address of the client.
        source: HashSource,
    }
}

choice! {
    /// What of the client is hashed.
    HashSource: balance::Key {
        /// Its IP address.
        Ip = "ip" => balance::Key::SourceIp,
    }
}

/// A layer replaces the whole of it.
impl Setting<balance::LoadBalancing> for Either<LoadBalancing, Hashing> {
    fn lay(
        &self,
        place: &Place,
        over: &mut balance::LoadBalancing,
        key: &str,
        layer: &mut Layer<'_>,
    ) {
        layer.forget(key);
        match self {
            Self::Short(word) => {
                layer.note(key, place.line);
                *over = word.meaning();
            }
            Self::Full(hashing) => {
                if let Some(hashed) = hashing.hashed(place, &below(key, "ring_hash"), layer) {
                    *over = balance::LoadBalancing::RingHash(hashed);
                }
            }
        }
    }

    fn show(settings: &balance::LoadBalancing, key: &str, view: View, shown: &mut Vec<Shown>) {
        let hashed = |name| below(&below(key, "ring_hash"), name);
        match settings {
            balance::LoadBalancing::RingHash(balance::Key::Header(name)) => {
                FieldName::show(name, &hashed("header"), view, shown);
            }
            balance::LoadBalancing::RingHash(source) => {
                HashSource::show(source, &hashed("source"), view, shown);
            }
            word => LoadBalancing::show(word, key, view, shown),
        }
    }
}

impl Hashing {
    /// What is hashed; `None`: that is a mistake.
    fn hashed(&self, place: &Place, key: &str, layer: &mut Layer<'_>) -> Option<balance::Key> {
        let Some(by) = self.ring_hash.as_ref() else {
            layer.mistake_unless_inside(place, "must be a word, or have ring_hash");
            return None;
        };
        let (header, source) = (by.header.as_ref(), by.source.as_ref());
        if let Some(header) = header {
            layer.note(&below(key, "header"), header.place.line);
        }
        if let Some(source) = source {
            layer.note(&below(key, "source"), source.place.line);
        }
        match (header, source) {
            (Some(name), None) => Some(balance::Key::Header(name.value.0.clone())),
            (None, Some(source)) => Some(source.value.meaning()),
            _ => {
                let what = "must have a header or a source, and not both";
                layer.mistake_unless_inside(&by.place, what);
                None
            }
        }
    }
}
