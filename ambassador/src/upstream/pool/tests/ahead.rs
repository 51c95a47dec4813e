//! What is done before anybody asks: connections that are dialled ahead, requests
//! counted for budgets, latencies.

use super::*;
use crate::upstream::pool::sweep::{Surplus, Sweep};

fn keeping(min_idle: u32) -> limits::Pool {
    limits::Pool { min_idle, ..of(9) }
}

#[test]
fn so_many_are_dialled_ahead_as_are_to_stand_idle() {
    on_a_shard(keeping(2), |shard| async move {
        shard.publish(&[1, 2]);
        shard.pools.obey_limits([&shard.shared].into_iter());
        timer::sleep(MS).await;
        assert_eq!((shard.counts(), shard.dials()), ((2, 2), 2));
        for number in [1, 2] {
            let lease = shard.lease(number).await;
            assert_eq!(
                lease.past,
                ConnectionUse::Waited,
                "each endpoint in its turn"
            );
            give_back(lease);
        }
        timer::sleep(5 * SECOND).await;
        assert_eq!(shard.dials(), 2, "no more than that");
        shard.close(0);
        timer::sleep(1_001 * MS).await;
        assert_eq!((shard.counts(), shard.dials()), ((2, 2), 3));
        // Of those in use another is dialled, within the cap.
        let _lease = shard.lease(1).await;
        timer::sleep(1_001 * MS).await;
        assert_eq!(shard.counts(), (3, 2));
    });
}

#[test]
fn what_is_dialled_ahead_is_what_requests_take() {
    on_a_shard(keeping(2), |shard| async move {
        shard.speak(settings::Protocol::Http2);
        shard.publish(&[1]);
        shard.pools.obey_limits([&shard.shared].into_iter());
        let idle_timeout = limits::Pool::default().idle_timeout;
        timer::sleep(MS).await;
        for peer in shard.peers.borrow_mut().iter_mut().flatten() {
            // SETTINGS, and that ours are known.
            let frames = b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";
            peer.write_all(frames).unwrap();
        }
        timer::sleep(2 * idle_timeout).await;
        assert_eq!((shard.counts(), shard.dials()), ((2, 2), 2), "they stay");
        let http2 = PoolKey {
            protocol: key::Protocol::Http2,
            ..key(1)
        };
        let taken = shard.pools.take(&shard.shared, http2, Freshness::Any);
        assert!(matches!(taken, Some(Leased::Shared(_))));
        timer::sleep(2 * SECOND).await;
        assert_eq!(shard.counts(), (2, 1), "it takes more requests");
        drop(taken);
        // Fewer are wanted.
        shard.limit(&keeping(1));
        timer::sleep(2 * idle_timeout).await;
        assert_eq!((shard.counts(), shard.dials()), ((1, 1), 2));
    });
}

#[test]
fn a_dial_ahead_that_fails_is_made_again() {
    on_a_shard(keeping(1), |shard| async move {
        shard.publish(&[1]);
        shard.refuses.set(2);
        shard.pools.obey_limits([&shard.shared].into_iter());
        timer::sleep(500 * MS).await;
        assert_eq!(shard.counts(), (0, 0));
        timer::sleep(2 * SECOND).await;
        assert_eq!((shard.counts(), shard.dials()), ((1, 1), 1));
    });
}

#[test]
fn nothing_is_dialled_where_none_is_wanted_or_can_be() {
    on_a_shard(keeping(0), |shard| async move {
        shard.publish(&[1]);
        shard.pools.obey_limits([&shard.shared].into_iter());
        assert!(
            shard.pools.pools.borrow().is_empty(),
            "nobody has called it"
        );
        assert_eq!(shard.pools.sweep(Surplus::Rested), Sweep::NothingLeft);
        shard.idle(1, 1).await;
        assert_eq!(shard.pools.sweep(Surplus::Rested), Sweep::SomethingLeft);
        drop(shard.lease(1).await);
        assert_eq!(shard.pools.sweep(Surplus::Rested), Sweep::NothingLeft);
        shard.idle(1, 1).await;
        assert_eq!(shard.dials(), 2);
        // Wanted, but nothing is published, then there is no permit.
        shard.publish(&[]);
        shard.limit(&keeping(2));
        shard.pools.obey_limits([&shard.shared].into_iter());
        timer::sleep(3 * SECOND).await;
        shard.publish(&[1]);
        shard.shared.permits.set_cap(Some(1));
        timer::sleep(3 * SECOND).await;
        assert_eq!((shard.counts(), shard.dials()), ((1, 1), 2));
        shard.shared.permits.set_cap(Some(9));
        timer::sleep(3 * SECOND).await;
        assert_eq!((shard.counts(), shard.dials()), ((2, 2), 3));
    });
}

#[test]
fn shards_share_what_is_to_stand_idle() {
    on_a_shard(of(9), |shard| async move {
        let shares = |shards: u16, min_idle| {
            let share = |number| {
                let dialer = Rc::new(Dialer::new(OwnAddresses::default(), Vec::new()));
                let pools = Pools::new(number, dialer);
                let others = usize::from(shards) - 1;
                pools.set_peers(vec![ring::remote(); others]);
                pools.share_of(min_idle)
            };
            (0..shards).map(share).collect::<Vec<_>>()
        };
        assert_eq!(shares(1, 7), [7]);
        assert_eq!(shares(3, 7), [3, 2, 2]);
        assert_eq!(shares(4, 2), [1, 1, 0, 0]);
        shard.pools.close_idle();
        assert_eq!(shard.pools.share_of(7), 0, "it drains");
    });
}

#[test]
fn budgets_are_told_of_requests_in_batches() {
    on_a_shard(of(9), |shard| async move {
        let (pools, shared, now) = (&shard.pools, &shard.shared, ring::now());
        let told = || {
            let budgets = [&shared.retry_budget, &shared.hedge_budget];
            budgets.map(|budget| budget.spent(now).requests)
        };
        for request in 1..=130 {
            pools.count_request(shared, now);
            assert_eq!(told(), [request / 64 * 64; 2], "{request}");
        }
        pools.report_requests(shared, now);
        pools.report_requests(shared, now);
        assert_eq!(told(), [130; 2]);
    });
}

#[test]
fn latencies_are_kept_where_somebody_goes_by_them() {
    on_a_shard(of(9), |shard| async move {
        let (pools, shared, now) = (&shard.pools, &shard.shared, ring::now());
        let of = |after| hedge::Settings {
            after,
            ..hedge::Settings::default()
        };
        let record = |settings: &hedge::Settings| {
            (0..100).for_each(|_| pools.record_latency(shared, settings, 10 * MS));
        };
        let p95 = of(HedgeDelay::P95);
        record(&p95);
        assert_eq!(
            pools.slow_at(shared, &p95, now),
            None,
            "nobody has called it"
        );
        pools.count_request(shared, now);
        record(&of(HedgeDelay::Off));
        assert_eq!(pools.slow_at(shared, &p95, now), None);
        record(&p95);
        let slow_at = pools.slow_at(shared, &p95, now).unwrap();
        assert!(slow_at >= now + 10 * MS && slow_at <= now + 12 * MS);
        let fixed = of(HedgeDelay::Time(MS));
        assert_eq!(pools.slow_at(shared, &fixed, now), Some(now + MS));
    });
}
