//! What is counted of a request.

use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use ambassador::testing::clock::Instant;
use ambassador::testing::telemetry::{Histogram, ListenerIndex, MethodLabel, Passage, Telemetry};

use crate::Measure;

pub(crate) fn all(measure: &mut impl Measure) {
    let mut histogram = Histogram::default();
    measure.each("telemetry/histogram", || {
        histogram.record(black_box(Duration::from_micros(730)));
    });
    let telemetry = Rc::new(Telemetry::default());
    let now = Instant::now();
    measure.each("telemetry/request", || {
        let mut record = telemetry.begin(Passage::new(ListenerIndex::CAPTURE, now));
        record.method = black_box(MethodLabel::Get);
        record.status.set(black_box(200));
        record.complete(now);
    });
}
