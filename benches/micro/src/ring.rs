//! A timer: armed by its first poll and cancelled by its drop, as those of
//! nearly all requests are.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use ambassador::testing::clock::Instant;
use ambassador::testing::ring::timer::{self, Sleep};
use ambassador::testing::ring::{self, Backend, Options};

use crate::Measure;

pub(crate) fn all(measure: &mut impl Measure) {
    timers(measure, "ring/timer", 0);
    timers(measure, "ring/timer_among_1000", 1_000);
}

/// Arms and cancels one timer while so many others are armed.
fn timers(measure: &mut impl Measure, name: &str, others: u64) {
    measure.batch(name, |times| {
        // The wheel is the same on either backend, and valgrind knows this one.
        let options = Options {
            backend: Backend::Epoll,
            shard: 0,
            spin: ring::Spin::Never,
        };
        let ran = ring::run(options, async move {
            let others = (0..others).map(|n| Duration::from_millis(10_000 + 7 * n));
            let _others: Vec<_> = others.map(armed).collect();
            let begun = Instant::now();
            for _ in 0..times {
                drop(armed(Duration::from_secs(5)));
            }
            begun.elapsed()
        });
        ran.expect("epoll works everywhere")
    });
}

fn armed(duration: Duration) -> impl Future<Output = ()> {
    let mut sleep: Sleep = timer::sleep(duration);
    let mut context = Context::from_waker(Waker::noop());
    let _ = pin!(&mut sleep).poll(&mut context);
    sleep
}
