use std::time::Duration;

use super::*;

const SHOP: UpstreamIndex = UpstreamIndex(2);

fn finished(method: MethodLabel, status: u16, took: Duration) -> (RequestRecord, Instant) {
    let started = Instant::now();
    let mut record = RequestRecord::new(Passage::new(ListenerIndex::CAPTURE, started));
    record.passage.upstream = SHOP;
    record.method = method;
    record.status.set(status);
    (record, started + took)
}

#[test]
fn shards_are_summed() {
    let (one, two) = (Cells::default(), Cells::default());
    let (record, ended) = finished(MethodLabel::Get, 200, Duration::from_millis(3));
    one.request(&record, ended);
    two.request(&record, ended);
    let (record, ended) = finished(MethodLabel::Post, 503, Duration::from_millis(9));
    two.request(&record, ended);
    two.bytes(SHOP, Direction::Sent, 7);
    one.fault(SHOP, FaultKind::Delay);
    two.fault(SHOP, FaultKind::Delay);
    two.pool(SHOP, |pool| pool.idle = 4);
    two.connection_opened(ListenerIndex(1));
    one.dropped_accept(DroppedAccept::ForeignPeer);
    one.task_panics(1);
    two.task_panics(2);

    let mut sum = one.snapshot();
    sum.merge(&two.snapshot());
    let shop = sum.upstream(SHOP).unwrap();
    let mut requests: Vec<_> = shop
        .requests()
        .map(|(key, count)| (key.method.as_str(), key.status, count))
        .collect();
    requests.sort_unstable();
    assert_eq!(requests, [("GET", 200, 2), ("POST", 503, 1)]);
    assert_eq!(shop.duration().count(), 3);
    assert_eq!(shop.duration().sum(), Duration::from_millis(15));
    assert_eq!(shop.bytes(Direction::Sent), 7);
    assert_eq!(shop.faults(FaultKind::Delay), 2);
    assert_eq!(shop.pool().idle, 4);
    assert_eq!(sum.connections(ListenerIndex(1)), 1);
    assert_eq!(sum.dropped_accepts(DroppedAccept::ForeignPeer), 1);
    assert_eq!(sum.task_panics(), 3);
    assert!(sum.upstream(UpstreamIndex::UNMATCHED).is_none());
}

#[test]
fn statuses_beyond_a_number_count_by_their_class() {
    let cells = Cells::default();
    for _ in 0..2 {
        for status in 100..1_000 {
            let (record, ended) = finished(MethodLabel::Get, status, Duration::ZERO);
            cells.request(&record, ended);
        }
    }
    let snapshot = cells.snapshot();
    let shop = snapshot.upstream(SHOP).unwrap();
    let requests: Vec<_> = shop.requests().collect();
    assert_eq!(requests.len(), REQUEST_SERIES_MAX + 9);
    let of = |label: &str| {
        let mut all = requests.iter();
        let found = all.find(|(key, _)| key.status_label() == label);
        found.map(|(_, count)| *count)
    };
    // Those that came first keep their own; nothing is lost.
    assert_eq!((of("100"), of("163"), of("164")), (Some(2), Some(2), None));
    assert_eq!(
        (of("1xx"), of("5xx"), of("9xx")),
        (Some(72), Some(200), Some(200))
    );
    assert_eq!(requests.iter().map(|(_, count)| count).sum::<u64>(), 1_800);
    let errors = requests.iter().filter(|(key, _)| key.is_error());
    assert_eq!(errors.map(|(_, count)| count).sum::<u64>(), 1_000);
}

#[test]
fn what_counts_late_for_a_name_that_is_gone_counts_for_nobody() {
    let cells = Cells::default();
    let next = UpstreamIndex(SHOP.0 + (1 << 20));
    cells.pool_reuse(SHOP);
    cells.forget_upstream(SHOP);
    assert_eq!(cells.snapshot().upstreams().count(), 0);
    cells.pool_reuse(SHOP);
    cells.pool_reuse(next);
    cells.pool_reuse(SHOP);
    let snapshot = cells.snapshot();
    assert_eq!(snapshot.upstream(next).unwrap().pool_reuse(), 1);
    assert!(snapshot.upstream(SHOP).is_none());
    let mut sum = Cells::default().snapshot();
    sum.merge(&snapshot);
    assert_eq!(sum.upstream(next).unwrap().pool_reuse(), 1);
}

#[test]
fn a_listener_leaves_with_its_last_connection() {
    let cells = Cells::default();
    let (token, gone) = (Arc::new(()), ListenerIndex(1));
    let watch = Arc::downgrade(&token);
    cells.connection_opened(gone);
    cells.listener_leaves(gone, token);
    assert_eq!(watch.strong_count(), 1);
    cells.connection_closed(gone);
    assert_eq!(watch.strong_count(), 0);
    assert_eq!(cells.snapshot().connections(gone), 0);
    // One without connections leaves at once; one that is back stays.
    let (one, two) = (Arc::new(()), Arc::new(()));
    let watch = Arc::downgrade(&one);
    cells.listener_leaves(gone, one);
    assert_eq!(watch.strong_count(), 0);
    cells.connection_opened(gone);
    cells.listener_leaves(gone, two);
    cells.listener_stays(gone);
    cells.connection_closed(gone);
    cells.connection_opened(gone);
    assert_eq!(cells.snapshot().connections(gone), 1);
}

#[test]
fn overhead_never_exceeds_the_request() {
    let cells = Cells::default();
    let (record, ended) = finished(MethodLabel::Get, 200, Duration::from_millis(1));
    record.overhead.set(Duration::from_secs(5));
    cells.request(&record, ended);
    let snapshot = cells.snapshot();
    let overhead = snapshot.upstream(SHOP).unwrap().overhead().sum();
    assert_eq!(overhead, Duration::from_millis(1));
}
