//! A place under the cap of an upstream: taken and given back.

use std::sync::Arc;

use ambassador::testing::addr::Peer;
use ambassador::testing::clock::Instant;
use ambassador::testing::upstream::permits::{Permits, Requester};

use crate::Measure;

pub(crate) fn all(measure: &mut impl Measure) {
    let permits = Arc::new(Permits::new(Some(100)));
    let now = Instant::now();
    let requester = Requester {
        shard: 0,
        peer: Peer::Local,
    };
    measure.each("upstream/permit", || {
        drop(permits.acquire(requester, 50, now));
    });
}
