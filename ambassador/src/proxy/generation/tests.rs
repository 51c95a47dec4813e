use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::addr::Authority;
use crate::policy::rate_limit::{self, OnLimit};
use crate::route::settings::{Claim, Policies, Protocol, Route, RouteMatch, Unmatched};

fn upstream(name: &str, port: u16, change: impl FnOnce(&mut Policies)) -> Arc<Upstream> {
    let mut policies = Policies::default();
    change(&mut policies);
    Arc::new(Upstream {
        tls: None,
        name: name.into(),
        claims: vec![Claim::Name {
            host: format!("{name}.test"),
            port: None,
        }],
        endpoints: Endpoints::Static(vec![SocketAddr::from(([10, 0, 0, 1], port)).into()]),
        protocol: Protocol::Http1,
        auth: None,
        placeholders: Vec::new(),
        on_failure: None,
        policies,
    })
}

fn generation(upstreams: Vec<Arc<Upstream>>, previous: Option<&Generation>) -> Generation {
    let settings = Settings {
        upstreams,
        unmatched: Unmatched::Adopt,
        ..Settings::default()
    };
    Generation::new(settings, &Registry::default(), previous)
}

#[test]
fn an_upstream_is_the_same_under_its_name_and_changes_when_it_is_put_in_force() {
    let before = generation(
        vec![upstream("a", 1, |_| {}), upstream("b", 1, |_| {})],
        None,
    );
    let [a, b] = [0, 1].map(|index| before.target(index).shared);
    let fewer = upstream("b", 2, |policies| policies.pool.max_connections = Some(1));
    let after = generation(vec![fewer, upstream("c", 1, |_| {})], Some(&before));
    let kept = after.target_by_name("b").expect("it is there").shared;
    assert!(Arc::ptr_eq(&kept, &b));
    assert!(after.target_by_name("a").is_none());
    let gone: Vec<_> = before.left_behind(&after).map(|shared| shared.id).collect();
    assert_eq!(gone, [a.id]);
    let port = || b.endpoints.current()[0].address.0.port();
    assert_eq!(port(), 1);
    after.put_in_force();
    assert_eq!(port(), 2);
    assert_eq!(after.targets().count(), 2);
    assert!(Arc::ptr_eq(
        before.unmatched_shared(),
        after.unmatched_shared()
    ));
}

#[test]
fn a_route_has_a_rate_limit_of_its_own_where_it_has_another_one() {
    let limit = |requests_per_second| {
        Some(rate_limit::Settings {
            requests_per_second,
            burst: 1,
            on_limit: OnLimit::Reject,
        })
    };
    let of = |rate| upstream("a", 1, |policies| policies.rate_limit = limit(rate));
    for (rate, is_own) in [(1.0, false), (2.0, true)] {
        let settings = Settings {
            upstreams: vec![of(1.0)],
            routes: vec![Route {
                matches: RouteMatch::default(),
                upstream: 0,
                overridden: Some(of(rate)),
            }],
            ..Settings::default()
        };
        let generation = Generation::new(settings, &Registry::default(), None);
        let matched = Matched {
            via: MatchSource::Route(0),
            ..matched(&generation)
        };
        let target = generation.matched(&matched);
        let shared = generation.target(0).shared;
        assert_eq!(
            !std::ptr::eq(target.rate_limit(), &shared.rate_limit),
            is_own
        );
    }
}

/// The first upstream, as by its name.
fn matched(generation: &Generation) -> Matched<'_> {
    let original = "10.0.0.9:80"
        .parse()
        .map(crate::addr::OriginalDst)
        .expect("an address");
    let name = Box::leak(Box::new(Authority::new("a.test", None).expect("a name")));
    match generation.table.resolve_connection(original, Some(name)) {
        crate::route::Resolution::Upstream(matched) => matched,
        _ => panic!("it is claimed"),
    }
}

#[test]
fn a_name_has_a_list_in_each_namespace() {
    let mut named = Upstream::clone(&upstream("a", 1, |_| {}));
    let by_address = generation(vec![Arc::new(named.clone())], None);
    named.endpoints = Endpoints::Dns {
        name: "a.test".into(),
        port: 80,
    };
    let by_name = generation(vec![Arc::new(named)], None);
    assert_eq!(by_name.target(0).list_for(Namespace(3)), Namespace(3));
    assert_eq!(by_address.target(0).list_for(Namespace(3)), Namespace(0));
}

#[test]
fn what_is_adopted_is_shown_with_its_uses() {
    let generation = generation(vec![], None);
    let mut cache = adopted::Cache::default();
    let authority = Authority::new("x.test", Some(80)).expect("a name");
    for _ in 0..2 {
        let key = AdoptKey::Authority(&authority);
        let (target, evicted) = generation.adopt(&mut cache, key, clock::now());
        target.count_use();
        assert!(evicted.is_empty());
    }
    let shown = generation.adopted();
    let shown: Vec<_> = shown.iter().map(|one| (&*one.name, one.requests)).collect();
    assert_eq!(shown, [("x.test:80", 2)]);
    assert_eq!(generation.adopted_shared().len(), 1);
    assert!(Duration::ZERO.is_zero());
}
