//! A place under the cap of an upstream: taken and given back.

use std::sync::Arc;

use ambassador::testing::addr::Peer;
use ambassador::testing::clock::Instant;
use ambassador::testing::upstream::permits::{Asker, Permits};

use crate::Measure;

pub(crate) fn all(measure: &mut impl Measure) {
    let permits = Arc::new(Permits::new(Some(100)));
    let now = Instant::now();
    let asker = Asker {
        shard: 0,
        peer: Peer::Local,
    };
    measure.each("upstream/permit", || {
        drop(permits.acquire(asker, 50, now));
    });
}
