//! A connection on loan from the pools of a shard.

use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use super::Pools;
use crate::upstream::connection::{Connection, ConnectionUse, Traffic};

/// The right to use a connection: today a whole one, exclusively. Dropped after
/// [`Lease::complete`] it gives the connection back; dropped before, it closes it,
/// as whatever is still on its way over it would be taken for the answer to
/// another request. Its permit goes with the connection.
pub struct Lease {
    /// `None` only within the drop. Boxed, as every step of a request moves it.
    connection: Option<Box<Connection>>,
    pools: Rc<Pools>,
}

impl Lease {
    /// A loan by the pools that the connection is to come back to.
    pub(super) fn new(mut connection: Box<Connection>, pools: &Rc<Pools>) -> Self {
        connection.traffic = Traffic::UnderWay;
        Self {
            connection: Some(connection),
            pools: Rc::clone(pools),
        }
    }

    /// Nothing is on its way over the connection any more, and whoever comes next
    /// may use it.
    pub fn complete(&mut self) {
        self.past = ConnectionUse::Used;
        self.traffic = Traffic::Over;
    }

    /// The same for one whose use did not come about: where it was dialled for
    /// that, whoever comes next is the first.
    pub fn release_unused(&mut self) {
        if self.past == ConnectionUse::Dialled {
            self.past = ConnectionUse::Waited;
        }
        self.traffic = Traffic::Over;
    }
}

impl Deref for Lease {
    type Target = Connection;

    #[inline]
    fn deref(&self) -> &Connection {
        self.connection
            .as_deref()
            .expect("it is only taken by drop")
    }
}

impl DerefMut for Lease {
    #[inline]
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection
            .as_deref_mut()
            .expect("it is only taken by drop")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let complete = |connection: &mut Box<Connection>| connection.traffic == Traffic::Over;
        if let Some(connection) = self.connection.take_if(complete) {
            self.pools.give_back(connection);
        }
    }
}
