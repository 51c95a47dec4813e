//! A place under the cap of an upstream: taken and given back.

use std::sync::Arc;

use ambassador::clock::Instant;
use ambassador::upstream::permits::Permits;

use crate::Measure;

pub(crate) fn all(measure: &mut impl Measure) {
    let permits = Arc::new(Permits::new(Some(100)));
    let now = Instant::now();
    measure.each("upstream/permit", || drop(permits.acquire(0, 50, now)));
}
