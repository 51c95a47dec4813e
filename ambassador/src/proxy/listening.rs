//! A listener as a shard knows it: what its connections mean, and when it ends.

use std::cell::RefCell;

use crate::proxy::accepted::Entry;
use crate::proxy::drain::Drain;
use crate::telemetry::ListenerIndex;

/// What the connections of a listener are. A reload may change it, under the
/// same socket.
#[derive(Debug, Clone)]
pub struct Meaning {
    /// What metrics call the listener.
    pub index: ListenerIndex,
    /// What its connections are.
    pub entry: Entry,
}

/// One listener of a shard.
pub struct Listening {
    /// Begins when a reload removes it.
    pub stop: Drain,
    meaning: RefCell<Meaning>,
}

impl Listening {
    /// One that accepts from now on.
    pub fn new(meaning: Meaning) -> Self {
        Self {
            stop: Drain::default(),
            meaning: RefCell::new(meaning),
        }
    }

    /// What is accepted now is this.
    pub fn meaning(&self) -> Meaning {
        self.meaning.borrow().clone()
    }

    /// What is accepted from now on is something else.
    pub fn change(&self, meaning: Meaning) {
        self.meaning.replace(meaning);
    }
}
