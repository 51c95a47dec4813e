use super::*;
use crate::run::tally::{Tally, Window};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn due_times_do_not_drift() {
    let open = OpenLoop::new(30_000, 3600 * SECOND);
    assert_eq!(open.total, 30_000 * 3600);
    assert_eq!(open.due(1), Duration::from_nanos(33_333));
    assert_eq!(open.due(30_000 * 3599), 3599 * SECOND);
}

#[test]
fn nothing_starts_before_it_is_due_or_without_a_connection() {
    let mut open = OpenLoop::new(1000, SECOND);
    assert_eq!(open.start(Moment::ZERO), None);
    assert_eq!(open.next_start(), None);
    open.release(7, Moment::ZERO);
    assert_eq!(open.next_start(), Some(Moment::ZERO));
    let first = open.start(Moment::ZERO).unwrap();
    assert_eq!((first.slot, first.due), (7, Moment::ZERO));
    open.release(7, MS / 2);
    assert_eq!(open.start(MS / 2), None);
    assert_eq!(open.next_start(), Some(MS));
    open.withdraw(7);
    assert_eq!(open.next_start(), None);
    assert_eq!(open.start(MS), None);
}

#[test]
fn the_generator_is_late_only_where_a_connection_was_free() {
    let mut open = OpenLoop::new(1000, SECOND);
    open.release(0, Moment::ZERO);
    // Due at 0 and 1 ms, looked at after 3 ms.
    assert_eq!(open.start(3 * MS).unwrap().delay, 3 * MS);
    open.release(0, 5 * MS);
    let second = open.start(5 * MS).unwrap();
    assert_eq!((second.due, second.delay), (MS, Duration::ZERO));
}

#[test]
fn the_queue_holds_a_second_of_load_and_counts_the_rest() {
    let mut open = OpenLoop::new(1000, 10 * SECOND);
    assert_eq!(open.waiting(SECOND - MS), 1000);
    assert_eq!(open.overflowed(), 0);
    assert_eq!(open.waiting(3 * SECOND - MS), 1000);
    assert_eq!(open.overflowed(), 2000);
    // The oldest are kept: they have waited longest, and that has to show.
    open.release(0, 3 * SECOND);
    assert_eq!(open.start(3 * SECOND).unwrap().due, Moment::ZERO);
    // Each request is sent, waits or has overflowed; none is due after the end.
    let waiting = open.waiting(20 * SECOND) as u64;
    assert_eq!(1 + waiting + open.overflowed(), 10_000);
    assert_eq!(open.queue_peak(), 1000);
}

#[test]
fn a_slow_rate_has_room_for_a_burst() {
    let mut open = OpenLoop::new(1, 1000 * SECOND);
    assert_eq!(open.waiting(500 * SECOND), QUEUE_MIN);
}

/// A server on a virtual clock that takes 1 ms per request and answers nothing
/// from second 4 to second 5; gives the latencies as counted from when requests
/// were due, and as counted from when they were sent.
fn stalled_server() -> (Tally, Tally) {
    let window = Window::new(Duration::ZERO, 10 * SECOND);
    let (mut from_due, mut from_sent) = (Tally::of_due(window), Tally::of_due(window));
    let mut open = OpenLoop::new(1000, 10 * SECOND);
    let connections = 4;
    for slot in 0..connections {
        open.release(slot, Moment::ZERO);
    }
    // When the request of a connection ends, when it was due, when sent.
    let mut busy: Vec<Option<(Moment, Moment, Moment)>> = vec![None; connections];
    let mut now = Moment::ZERO;
    while now < 12 * SECOND {
        for (slot, request) in busy.iter_mut().enumerate() {
            if let Some((_, due, sent)) = request.take_if(|(ends, ..)| *ends <= now) {
                from_due.answered(due, now);
                from_sent.answered(sent, now);
                open.release(slot, now);
            }
        }
        while let Some(start) = open.start(now) {
            let ends = match now + MS {
                ends if ends >= 4 * SECOND && ends < 5 * SECOND => 5 * SECOND,
                ends => ends,
            };
            busy[start.slot] = Some((ends, start.due, now));
        }
        now += MS / 4;
    }
    (from_due, from_sent)
}

#[test]
fn a_stall_shows_in_the_latencies_of_all_that_was_due_meanwhile() {
    let (from_due, from_sent) = stalled_server();
    assert_eq!(from_due.requests(), 10_000);
    // A tenth of all requests was due in the stalled second, and the backlog
    // takes another third of a second to go: p99 is near the whole stall, p95
    // about half of it.
    let quantile = |tally: &Tally, quantile| tally.latency().value_at_quantile(quantile) / 1000;
    assert!(quantile(&from_due, 0.99) > 850_000);
    assert!(quantile(&from_due, 0.95) > 400_000);
    assert!(quantile(&from_due, 0.50) < 1_100);
    // What coordinated omission would have said: four slow requests.
    assert!(quantile(&from_sent, 0.999) < 1_100);
}
