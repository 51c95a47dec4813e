use std::collections::BTreeMap;
use std::sync::Barrier;
use std::time::Duration;

use super::*;
use crate::clock;
use crate::policy::balance::{Key, hash};
use crate::route::settings;

mod picks;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const BAD: Grade = Grade::Bad { retry_after: None };
const SOURCE: LoadBalancing = LoadBalancing::RingHash(Key::SourceIp);

fn address(port: u16) -> EndpointAddr {
    EndpointAddr(([127, 0, 0, 1], port).into())
}

fn endpoint(port: u16, weight: u32, zone: Option<&str>) -> settings::Endpoint {
    settings::Endpoint {
        address: address(port),
        weight,
        zone: zone.map(Into::into),
    }
}

/// Endpoints at ports from 0 on, of these weights.
fn weighing(weights: &[u32]) -> Vec<settings::Endpoint> {
    let ports = 0..weights.len() as u16;
    ports
        .zip(weights)
        .map(|(port, weight)| endpoint(port, *weight, None))
        .collect()
}

/// A shard of an upstream, with a clock and random numbers of a fixed seed.
struct Shard<'a> {
    published: &'a Published,
    balancer: Balancer,
    load_balancing: LoadBalancing,
    outlier: outlier::Settings,
    now: Instant,
    asked: u64,
}

impl<'a> Shard<'a> {
    fn of(published: &'a Published, load_balancing: LoadBalancing) -> Self {
        Self {
            published,
            balancer: Balancer::default(),
            load_balancing,
            outlier: outlier::Settings::default(),
            now: clock::now(),
            asked: 0,
        }
    }

    fn ask(&mut self, key: Option<u64>, tried: &[EndpointAddr]) -> Option<Pick> {
        self.asked += 1;
        let asked = self.asked;
        let input = PickInput {
            load_balancing: &self.load_balancing,
            key,
            tried,
            probe: Probe::Allowed,
            random: &|| hash(&asked.to_be_bytes()),
            now: self.now,
        };
        self.balancer.pick(self.published, &input)
    }

    fn pick(&mut self) -> Pick {
        self.ask(None, &[]).unwrap()
    }

    /// A try that ends at once; the port it went to.
    fn request(&mut self, grade: Grade) -> u16 {
        let mut picked = self.pick();
        picked.ended(grade, &self.outlier, self.now);
        picked.endpoint.0.port()
    }

    /// How often each was picked, while those at the `bad` ports fail.
    fn requests(&mut self, count: u32, bad: &[u16]) -> BTreeMap<u16, u32> {
        let mut ports = BTreeMap::new();
        for _ in 0..count {
            let mut picked = self.pick();
            let port = picked.endpoint.0.port();
            let grade = match bad.contains(&port) {
                true => BAD,
                false => Grade::Good,
            };
            picked.ended(grade, &self.outlier, self.now);
            *ports.entry(port).or_default() += 1;
        }
        ports
    }
}

fn ports(counts: &BTreeMap<u16, u32>) -> Vec<u16> {
    counts.keys().copied().collect()
}

#[test]
fn there_is_none_before_a_list_is_published() {
    let published = Published::default();
    let mut shard = Shard::of(&published, LoadBalancing::default());
    assert!(shard.ask(None, &[]).is_none());
    published.publish(weighing(&[1]), None);
    assert_eq!(shard.request(BAD), 0);
    published.publish([], None);
    assert!(shard.ask(None, &[]).is_none());
}

#[test]
fn round_robin_takes_turns_over_all_shards() {
    let published = Published::default();
    published.publish(weighing(&[1, 1, 2]), None);
    let mut shards = [0, 1].map(|_| Shard::of(&published, LoadBalancing::RoundRobin));
    let turns: Vec<u16> = (0..8)
        .map(|turn| shards[turn % 3 % 2].request(Grade::Good))
        .collect();
    assert_eq!(turns, [2, 0, 1, 2, 2, 0, 1, 2]);
}

fn check(published: &Published, place: usize, fitness: Fitness, now: Instant) {
    let health = &published.current()[place].health;
    published.detector().set_fitness(health, fitness, now);
}

#[test]
fn an_unhealthy_endpoint_gets_nothing_unless_all_are() {
    for load_balancing in [LoadBalancing::RoundRobin, LoadBalancing::LeastRequest] {
        let published = Published::default();
        published.publish(weighing(&[1, 1, 1]), None);
        let mut shard = Shard::of(&published, load_balancing);
        let now = shard.now;
        check(&published, 0, Fitness::Unhealthy, now);
        assert_eq!(ports(&shard.requests(50, &[])), [1, 2]);
        // A retry goes there no more than a first try does.
        let tried = [address(1), address(2)];
        for _ in 0..50 {
            let picked = shard.ask(None, &tried).unwrap();
            assert_ne!(picked.endpoint, address(0));
        }
        check(&published, 1, Fitness::Unhealthy, now);
        assert_eq!(ports(&shard.requests(50, &[])), [2], "fewer than half");
        check(&published, 2, Fitness::Unhealthy, now);
        assert_eq!(ports(&shard.requests(50, &[])), [0, 1, 2]);
        // What requests find still counts: one of them is dead.
        assert!(shard.requests(200, &[1])[&1] < 20);
        assert_eq!(ports(&shard.requests(50, &[1])), [0, 2]);
        check(&published, 1, Fitness::Healthy, now);
        assert_eq!(ports(&shard.requests(50, &[])), [1], "at once");
    }
}

#[test]
fn an_unhealthy_endpoint_is_not_probed() {
    let published = Published::default();
    published.publish(weighing(&[1, 1, 1]), None);
    let mut shard = Shard::of(&published, LoadBalancing::RoundRobin);
    assert!(shard.requests(200, &[0])[&0] < 20);
    check(&published, 0, Fitness::Unhealthy, shard.now);
    shard.now += 100 * SECOND;
    assert_eq!(ports(&shard.requests(50, &[])), [1, 2]);
    // Its ejection ends with what brought it about.
    check(&published, 0, Fitness::Healthy, shard.now);
    assert_eq!(ports(&shard.requests(50, &[])), [0, 1, 2]);
}

#[test]
fn what_is_in_flight_counts_until_it_is_dropped() {
    let published = Published::default();
    published.publish(weighing(&[1, 1]), None);
    let mut shard = Shard::of(&published, LoadBalancing::LeastRequest);
    let mut first = shard.pick();
    let other = 1 - first.endpoint.0.port();
    assert_eq!(ports(&shard.requests(50, &[])), [other]);
    // Its head is there, its body is still on its way.
    first.ended(Grade::Good, &shard.outlier, shard.now);
    assert_eq!(ports(&shard.requests(50, &[])), [other]);
    drop(first);
    assert_eq!(ports(&shard.requests(50, &[])), [0, 1]);
}

#[test]
fn what_is_in_flight_counts_over_a_new_list() {
    let published = Published::default();
    published.publish(weighing(&[1, 1]), None);
    let mut shard = Shard::of(&published, LoadBalancing::LeastRequest);
    let held = shard.pick();
    let busy = held.endpoint.0.port();
    published.publish(weighing(&[1, 1, 1]), None);
    let counts = shard.requests(100, &[]);
    assert!(!counts.contains_key(&busy), "{counts:?}");
    // It may leave the list before its requests end.
    published.publish([endpoint(7, 1, None), endpoint(8, 1, None)], None);
    assert_eq!(ports(&shard.requests(100, &[])), [7, 8]);
    drop(held);
}

#[test]
fn a_retry_goes_where_no_try_has_been() {
    let published = Published::default();
    published.publish(weighing(&[1, 5, 1]), None);
    for load_balancing in ALL {
        let mut shard = Shard::of(&published, load_balancing.clone());
        let key = (load_balancing == SOURCE).then_some(42);
        for _ in 0..50 {
            let retry = shard.ask(key, &[address(1)]).unwrap();
            assert_ne!(retry.endpoint, address(1), "{load_balancing:?}");
            let retry = shard.ask(key, &[address(2), address(1)]).unwrap();
            assert_eq!(retry.endpoint, address(0), "{load_balancing:?}");
            let all = [address(0), address(1), address(2)];
            assert!(shard.ask(key, &all).is_some(), "rather again than not");
        }
    }
}

#[test]
fn ejected_ones_get_nothing_then_a_probe_then_their_share() {
    let published = Published::default();
    published.publish(weighing(&[1, 1, 1]), None);
    let mut shard = Shard::of(&published, LoadBalancing::LeastRequest);
    let counts = shard.requests(100, &[1]);
    assert_eq!(counts[&1], 5);
    assert_eq!(ports(&shard.requests(100, &[])), [0, 2]);
    shard.now += 34 * SECOND;
    let mut probe = shard.pick();
    assert_eq!(probe.endpoint, address(1));
    assert_eq!(ports(&shard.requests(100, &[])), [0, 2], "one probe");
    probe.ended(Grade::Good, &shard.outlier, shard.now);
    drop(probe);
    assert_eq!(ports(&shard.requests(100, &[])), [0, 1, 2]);
}

#[test]
fn a_lost_probe_is_made_again() {
    let published = Published::default();
    published.publish(weighing(&[1, 1]), None);
    let mut shard = Shard::of(&published, LoadBalancing::LeastRequest);
    shard.requests(100, &[0]);
    shard.now += 34 * SECOND;
    for _ in 0..3 {
        let probe = shard.pick();
        assert_eq!(probe.endpoint, address(0));
        assert_eq!(ports(&shard.requests(50, &[])), [1]);
        drop(probe);
    }
}

#[test]
fn a_retry_is_no_probe() {
    let published = Published::default();
    published.publish(weighing(&[1, 1, 1]), None);
    let mut shard = Shard::of(&published, LoadBalancing::LeastRequest);
    shard.requests(100, &[0]);
    shard.now += 34 * SECOND;
    for _ in 0..20 {
        let retry = shard.ask(None, &[address(1)]).unwrap();
        assert_eq!(retry.endpoint, address(2));
    }
    assert_eq!(shard.pick().endpoint, address(0));
}

#[test]
fn one_shard_ejects_for_all_and_one_probes() {
    let published = Published::default();
    published.publish(weighing(&[1, 1]), None);
    let barrier = Barrier::new(4);
    let start = clock::now();
    let probes: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let (published, barrier) = (&published, &barrier);
                scope.spawn(move || {
                    let mut shard = Shard::of(published, LoadBalancing::LeastRequest);
                    shard.now = start;
                    shard.requests(10, &[]);
                    barrier.wait();
                    if number == 0 {
                        shard.requests(100, &[0]);
                    }
                    barrier.wait();
                    assert_eq!(ports(&shard.requests(100, &[])), [1]);
                    barrier.wait();
                    shard.now += 34 * SECOND;
                    let held: Vec<Pick> = (0..10).map(|_| shard.pick()).collect();
                    barrier.wait();
                    let at_0 = held.iter().filter(|one| one.endpoint == address(0));
                    at_0.count()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(probes, 1);
}

#[test]
fn a_throttled_one_is_slow_and_not_ejected() {
    let published = Published::default();
    published.publish(weighing(&[1, 1]), None);
    let mut shard = Shard::of(&published, LoadBalancing::PeakEwma);
    let throttled = Grade::of_status(429, Some(20 * SECOND));
    assert_eq!(shard.requests(20, &[]).len(), 2);
    let throttling = shard.request(throttled);
    let views = published.views(shard.now);
    assert!(views.iter().all(|view| view.consecutive_failures == 0));
    shard.now += 20 * SECOND;
    assert_eq!(ports(&shard.requests(50, &[])), [1 - throttling]);
}

#[test]
fn peak_ewma_sees_the_time_a_try_took() {
    let published = Published::default();
    published.publish(weighing(&[1, 1]), None);
    let mut shard = Shard::of(&published, LoadBalancing::PeakEwma);
    for _ in 0..100 {
        let mut picked = shard.pick();
        let slow = picked.endpoint == address(0);
        let later = shard.now + if slow { 500 * MS } else { 5 * MS };
        picked.ended(Grade::Good, &shard.outlier, later);
    }
    assert_eq!(ports(&shard.requests(50, &[])), [1]);
}

#[test]
fn keys_of_an_ejected_endpoint_move_and_no_others() {
    let published = Published::default();
    published.publish(weighing(&[1; 10]), None);
    let mut shard = Shard::of(&published, SOURCE);
    let owners = |shard: &mut Shard<'_>| -> Vec<EndpointAddr> {
        let keys = (0_u64..1_000).map(|key| hash(&key.to_le_bytes()));
        keys.map(|key| shard.ask(Some(key), &[]).unwrap().endpoint)
            .collect()
    };
    let before = owners(&mut shard);
    let ejected = before[0];
    for _ in 0..5 {
        let mut picked = shard.ask(Some(hash(&0_u64.to_le_bytes())), &[]).unwrap();
        picked.ended(BAD, &shard.outlier, shard.now);
    }
    let after = owners(&mut shard);
    assert!(!after.contains(&ejected));
    for (old, new) in before.iter().zip(after) {
        assert!(*old == new || *old == ejected);
    }
    // Without a key it goes anywhere.
    assert!(shard.requests(200, &[]).len() > 5);
}

#[test]
fn the_zone_is_left_only_when_none_of_it_is_usable() {
    let published = Published::default();
    let list = [
        endpoint(0, 1, Some("a")),
        endpoint(1, 1, Some("b")),
        endpoint(2, 1, None),
    ];
    published.publish(list, Some("a"));
    let mut shard = Shard::of(&published, LoadBalancing::LeastRequest);
    assert_eq!(ports(&shard.requests(100, &[])), [0]);
    shard.requests(20, &[0]);
    assert_eq!(ports(&shard.requests(100, &[])), [1, 2]);
    shard.now += 34 * SECOND;
    assert_eq!(shard.request(Grade::Good), 0, "the probe");
    assert_eq!(ports(&shard.requests(100, &[])), [0]);
}

#[test]
fn in_a_panic_all_get_requests() {
    let published = Published::default();
    published.publish(weighing(&[1; 4]), None);
    let mut shard = Shard::of(&published, LoadBalancing::LeastRequest);
    shard.outlier.max_ejected = 1.0;
    // Two of four are out, then three.
    shard.requests(100, &[0, 1]);
    assert_eq!(ports(&shard.requests(100, &[])), [2, 3]);
    shard.requests(100, &[2]);
    assert_eq!(shard.requests(200, &[]).len(), 4);
}

/// A request of up to three tries to endpoints of which some are bad; how many
/// tries it took to be served.
fn tries(shard: &mut Shard<'_>, bad: &[u16]) -> Option<usize> {
    let mut tried = Vec::new();
    for tries in 1..=3 {
        let mut picked = shard.ask(None, &tried).unwrap();
        let is_bad = bad.contains(&picked.endpoint.0.port());
        let grade = if is_bad { BAD } else { Grade::Good };
        picked.ended(grade, &shard.outlier, shard.now);
        if !is_bad {
            return Some(tries);
        }
        tried.push(picked.endpoint);
    }
    None
}

const ALL: [LoadBalancing; 5] = [
    LoadBalancing::RoundRobin,
    LoadBalancing::LeastRequest,
    LoadBalancing::PeakEwma,
    LoadBalancing::Random,
    SOURCE,
];

#[test]
fn every_request_is_served_while_one_of_three_is_well() {
    for load_balancing in ALL {
        for bad in [&[0][..], &[1, 2], &[0, 2]] {
            let published = Published::default();
            published.publish(weighing(&[1; 3]), None);
            let mut shard = Shard::of(&published, load_balancing.clone());
            let mut extra = 0;
            // Ten minutes, and every probe that falls due in them.
            for request in 0..6_000 {
                let tries = tries(&mut shard, bad);
                extra += tries.unwrap_or_else(|| panic!("{load_balancing:?} {request}")) - 1;
                shard.now += 100 * MS;
            }
            // What leads to the ejections, and the probes after 30, 60, 90 s ...
            assert!(extra < 60, "{load_balancing:?} {bad:?}: {extra}");
        }
    }
}

#[test]
fn a_retry_leaves_a_zone_that_failed() {
    let published = Published::default();
    let zones = ["a", "a", "a", "b", "b"];
    let list = zones.iter().zip(0..);
    let list = list.map(|(zone, port)| endpoint(port, 1, Some(zone)));
    published.publish(list, Some("a"));
    let mut shard = Shard::of(&published, LoadBalancing::LeastRequest);
    for request in 0..1_000 {
        let tries = tries(&mut shard, &[0, 1, 2]);
        assert!(tries.is_some_and(|tries| tries <= 2), "{request}");
        shard.now += 100 * MS;
    }
}

#[test]
fn what_fails_stays_rarer_than_what_does_not_however_many_are_bad() {
    for load_balancing in ALL {
        if load_balancing == SOURCE {
            continue;
        }
        for bad in 1..10_u16 {
            let published = Published::default();
            published.publish(weighing(&[1; 10]), None);
            let mut shard = Shard::of(&published, load_balancing.clone());
            let bad: Vec<u16> = (0..bad).collect();
            // Until each has failed once, which tells of it.
            let mut unknown = bad.clone();
            let (mut failed, mut well) = (0, 0);
            for _ in 0..1_000 {
                let port = {
                    let mut picked = shard.pick();
                    let port = picked.endpoint.0.port();
                    let is_bad = bad.contains(&port);
                    let grade = if is_bad { BAD } else { Grade::Good };
                    picked.ended(grade, &shard.outlier, shard.now);
                    port
                };
                if unknown.contains(&port) {
                    unknown.retain(|one| *one != port);
                } else if bad.contains(&port) {
                    failed += 1;
                } else {
                    well += 1;
                }
                assert!(failed * 3 <= well, "{load_balancing:?} {bad:?}");
            }
            assert!(well > 200, "{load_balancing:?} {bad:?}: {well}");
        }
    }
}

#[test]
fn an_endpoint_that_fails_now_and_then_keeps_its_share() {
    let published = Published::default();
    published.publish(weighing(&[1; 10]), None);
    let mut shard = Shard::of(&published, LoadBalancing::LeastRequest);
    let mut counts = [0_u32; 10];
    for request in 0..10_000_u32 {
        let mut picked = shard.pick();
        counts[usize::from(picked.endpoint.0.port())] += 1;
        let grade = if request % 50 == 0 { BAD } else { Grade::Good };
        picked.ended(grade, &shard.outlier, shard.now);
    }
    assert!(
        counts.iter().all(|count| (900..1_100).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn the_probe_of_a_circuit_probes_no_endpoint() {
    let published = Published::default();
    published.publish(weighing(&[1; 3]), None);
    let mut shard = Shard::of(&published, LoadBalancing::LeastRequest);
    shard.requests(200, &[0, 1]);
    shard.now += 34 * SECOND;
    for _ in 0..20 {
        let input = PickInput {
            load_balancing: &LoadBalancing::LeastRequest,
            key: None,
            tried: &[],
            probe: Probe::Avoided,
            random: &|| 7,
            now: shard.now,
        };
        let picked = shard.balancer.pick(&published, &input).unwrap();
        assert_eq!(picked.endpoint, address(2));
    }
    assert_ne!(shard.pick().endpoint, address(2));
}

#[test]
fn a_lone_endpoint_is_used_whatever_it_did() {
    let published = Published::default();
    published.publish(weighing(&[1, 1]), None);
    let mut shard = Shard::of(&published, LoadBalancing::LeastRequest);
    shard.requests(50, &[0]);
    published.publish(weighing(&[1]), None);
    assert_eq!(ports(&shard.requests(50, &[])), [0]);
    assert!(shard.pick().watch.is_none(), "nothing is counted");
}

#[test]
fn statuses_are_judged() {
    let retry_after = Some(SECOND);
    for (status, expected) in [
        (200, Grade::Good),
        (404, Grade::Good),
        (429, Grade::Throttled { retry_after }),
        (500, Grade::Bad { retry_after }),
        (503, Grade::Bad { retry_after }),
    ] {
        assert_eq!(Grade::of_status(status, retry_after), expected, "{status}");
    }
}
