//! The endpoint of a request, by the namespace that its name is of.

use super::*;
use crate::policy::balance::LoadBalancing;
use crate::policy::outlier;
use crate::upstream::balancer::{Grade, PickInput, Probe};

const ELSEWHERE: Namespace = Namespace(7);

fn pick(shard: &Shard, namespace: Namespace) -> Option<EndpointAddr> {
    let input = PickInput {
        load_balancing: &LoadBalancing::RoundRobin,
        key: None,
        tried: &[],
        probe: Probe::Allowed,
        random: &|| 7,
        now: ring::now(),
    };
    let pick = shard.pools.pick(&shard.shared, namespace, &input)?;
    Some(pick.endpoint)
}

fn pick_bound(shard: &Shard, namespace: Namespace, number: u8) -> bool {
    let input = PickInput {
        load_balancing: &LoadBalancing::RoundRobin,
        key: None,
        tried: &[],
        probe: Probe::Allowed,
        random: &|| 7,
        now: ring::now(),
    };
    let (pools, shared) = (&shard.pools, &shard.shared);
    let mut pick = pools.pick_bound(shared, namespace, endpoint(number), &input);
    assert_eq!(pick.endpoint, endpoint(number));
    let bad = Grade::Bad { retry_after: None };
    pick.ended(bad, &outlier::Settings::default(), ring::now());
    pick.has_alternatives()
}

fn publish_elsewhere(shard: &Shard, numbers: &[u8]) {
    let list = numbers.iter().map(|number| endpoint(*number));
    let list = list.map(settings::Endpoint::from);
    let there = shard.pools.namespace(&shard.shared, ELSEWHERE);
    there.endpoints.publish(list, None);
}

#[test]
fn each_namespace_has_its_own_endpoints() {
    for retired in [false, true] {
        on_a_shard(of(9), move |shard| async move {
            if retired {
                shard.shared.retire();
            }
            assert_eq!(pick(&shard, Namespace::default()), None);
            assert_eq!(pick(&shard, ELSEWHERE), None);
            shard.publish(&[1, 2]);
            publish_elsewhere(&shard, &[3, 4]);
            let picks = |namespace| {
                let picks = (0..4).filter_map(|_| pick(&shard, namespace));
                let picks: std::collections::BTreeSet<_> = picks.collect();
                picks.into_iter().collect::<Vec<_>>()
            };
            assert_eq!(picks(Namespace::default()), [endpoint(1), endpoint(2)]);
            assert_eq!(picks(ELSEWHERE), [endpoint(3), endpoint(4)]);
            let known = !shard.pools.pools.borrow().is_empty();
            assert_eq!(known, !retired, "of a retired one nothing is kept");
        });
    }
}

#[test]
fn a_given_endpoint_is_watched_in_its_namespace_unless_the_upstream_is_gone() {
    on_a_shard(of(9), |shard| async move {
        shard.publish(&[1, 2]);
        publish_elsewhere(&shard, &[3, 4]);
        assert!(pick_bound(&shard, Namespace::default(), 1));
        assert!(!pick_bound(&shard, Namespace::default(), 3));
        assert!(pick_bound(&shard, ELSEWHERE, 3));
        let other = |namespace| {
            let (pools, shared) = (&shard.pools, &shard.shared);
            pools.of_other_family(shared, namespace, endpoint(1))
        };
        assert_eq!(other(Namespace::default()), None);
        let v6 = EndpointAddr(([0, 0, 0, 0, 0, 0, 0, 1], 80).into());
        let list = [endpoint(3), v6].map(settings::Endpoint::from);
        let there = shard.pools.namespace(&shard.shared, ELSEWHERE);
        there.endpoints.publish(list, None);
        assert_eq!(other(Namespace::default()), None);
        assert_eq!(other(ELSEWHERE), Some(v6));
        shard.shared.retire();
        assert!(!pick_bound(&shard, Namespace::default(), 1));
    });
}

#[test]
fn a_namespace_that_is_forgotten_begins_anew() {
    on_a_shard(of(9), |shard| async move {
        publish_elsewhere(&shard, &[3]);
        assert_eq!(pick(&shard, ELSEWHERE), Some(endpoint(3)));
        shard.shared.other_namespaces.forget(ELSEWHERE);
        assert_eq!(pick(&shard, ELSEWHERE), Some(endpoint(3)), "in use still");
        shard.pools.forget_namespace(Namespace(8));
        assert_eq!(pick(&shard, ELSEWHERE), Some(endpoint(3)));
        shard.pools.forget_namespace(ELSEWHERE);
        assert_eq!(pick(&shard, ELSEWHERE), None);
    });
}
