//! Requests on connections that the upstream may not look at yet.
//!
//! An upstream with one thread, or with a few processes, serves as many
//! connections at a time, idle ones included: a connection that has just been
//! dialled is answered when another one closes. As long as a dialled connection
//! has no answer, while more connections stand idle than the upstream was ever
//! seen to answer beside, one of those is closed now and then; after two seconds
//! in any case.

use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use super::Pools;
use super::takeover::Need;
use crate::ring::{self, timer};
use crate::upstream::connection::{Connection, Past, Place};
use crate::upstream::shared::Shared;

/// When it is looked for one to close, from one look to the next.
const LOOKS: [Duration; 5] = [
    Duration::from_millis(20),
    Duration::from_millis(30),
    Duration::from_millis(100),
    Duration::from_millis(350),
    Duration::from_millis(1_500),
];

impl Pools {
    /// Watches over a request that is about to go over `connection`, until
    /// [`Connection::is_answered`].
    pub fn watch(self: &Rc<Self>, shared: &Arc<Shared>, connection: &Connection) {
        // Nothing stands in the way of the only one.
        if connection.past != Past::Dialled || shared.permits.in_use() < 2 {
            return;
        }
        let (unanswered, place) = (connection.wait_for_answer(), connection.place());
        let (pools, shared) = (Rc::downgrade(self), Arc::clone(shared));
        ring::spawn(async move {
            for (look, wait) in LOOKS.into_iter().enumerate() {
                timer::sleep(wait).await;
                let Some(pools) = pools.upgrade() else { return };
                if unanswered.strong_count() == 0 {
                    return;
                }
                // What has ended and was not noticed yet may have stood for idle.
                let is_last = look + 1 == LOOKS.len();
                if is_last || shared.idle() > shared.answered_beside() {
                    pools.make_way(&shared, place).await;
                }
            }
        });
    }

    /// Closes an idle connection to `place`, of whatever shard.
    async fn make_way(&self, shared: &Shared, place: Place) {
        if shared.idle() == 0 {
            return;
        }
        let own = self.take_newest(shared.id, place);
        if own.is_none() {
            drop(self.ask_others(shared, place, Need::Blocked).await);
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
        if self.past == Past::Dialled {
            shared.answer_beside_idle();
            self.unanswered.set(None);
        }
    }
}
