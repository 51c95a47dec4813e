//! Upstreams that serve few connections at a time: closes idle connections that
//! block a new one.
//!
//! An upstream with one thread or a few processes serves only as many
//! connections, idle ones included: a new connection is answered when another one
//! closes. While a new connection has no answer, and more connections are idle
//! than the upstream was ever seen to serve, one of those is closed now and then;
//! every two seconds or so in any case.

use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use super::Pools;
use super::takeover::Need;
use crate::ring::{self, timer};
use crate::upstream::connection::{Connection, ConnectionUse};
use crate::upstream::key::PoolKey;
use crate::upstream::shared::Shared;

/// When one to close is looked for at first, from one look to the next.
const FIRST_LOOKS: [Duration; 3] = [
    Duration::from_millis(25),
    Duration::from_millis(25),
    Duration::from_millis(100),
];

/// And then: of many that wait for one place, each needs a look of its own.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// One look in so many, the first after two seconds, goes by nothing that was seen
/// before: what had ended and was not noticed yet may have stood for idle then.
const DOUBT_EVERY: usize = 10;

/// Looks in all: half a minute.
const LOOKS_MAX: usize = 120;

impl Pools {
    /// Watches a request over `connection` until [`Connection::is_answered`], and
    /// closes idle connections that block it.
    pub fn watch(self: &Rc<Self>, shared: &Arc<Shared>, connection: &Connection) {
        if connection.past != ConnectionUse::Dialled {
            return;
        }
        let (unanswered, key) = (connection.wait_for_answer(), connection.key());
        let (pools, shared) = (Rc::downgrade(self), Arc::clone(shared));
        ring::spawn(async move {
            for look in 0..LOOKS_MAX {
                timer::sleep(FIRST_LOOKS.get(look).copied().unwrap_or(LOOK_EVERY)).await;
                let Some(pools) = pools.upgrade() else { return };
                if unanswered.strong_count() == 0 {
                    return;
                }
                let doubts = look > 0 && look % DOUBT_EVERY == 0;
                if doubts || shared.idle() > shared.answered_beside() {
                    pools.make_way(&shared, key).await;
                }
            }
        });
    }

    /// Closes an idle connection for `key`, of whatever shard.
    async fn make_way(&self, shared: &Shared, key: PoolKey) {
        if shared.idle() == 0 {
            return;
        }
        let own = self.take_blocking(shared.id, key);
        if own.is_none() {
            drop(self.ask_others(shared, key, Need::Blocked).await);
        }
    }
}

impl Connection {
    /// Something that lives until the connection is answered, or gone.
    fn wait_for_answer(&self) -> Weak<()> {
        let unanswered = Rc::new(());
        let weak = Rc::downgrade(&unanswered);
        self.unanswered.set(Some(unanswered));
        weak
    }

    /// The upstream has answered on it.
    pub fn is_answered(&self, shared: &Shared) {
        if self.past == ConnectionUse::Dialled {
            shared.answer_beside_idle();
            self.unanswered.set(None);
        }
    }
}
