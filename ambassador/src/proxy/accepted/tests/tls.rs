//! Connections that are passed through by the server name they ask for.

use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::proxy::scripted::client_hello;
use crate::route::settings::{Claim, Upstream};

/// A second upstream, by its name alone, at the endpoint of the first.
fn with_named(protocol: Protocol, named: Protocol) -> Plan {
    let mut plan = plan(protocol);
    plan.settings.upstreams.push(Arc::new(Upstream {
        tls: None,
        name: "named".into(),
        claims: vec![Claim::Name {
            host: "tls.test".into(),
            port: None,
        }],
        endpoints: Endpoints::Static(vec![SocketAddr::from(([10, 0, 0, 1], 80)).into()]),
        protocol: named,
        policies: plan.policies.clone(),
    }));
    plan
}

#[test]
fn tls_goes_by_the_name_that_it_asks_for() {
    for (name, upstream) in [("tls.test", "named"), ("other.test", "up")] {
        for silent_for in [Duration::ZERO, SECOND] {
            play_in(
                1,
                with_named(Protocol::Auto, Protocol::Auto),
                async move |world| {
                    hands(&world, 2);
                    let hello = client_hello(name);
                    let caller = world.captured(ADDRESS);
                    timer::sleep(silent_for).await;
                    caller.send(hello.clone()).await;
                    timer::sleep(10 * MS).await;
                    let mut server = world.endpoints[0].handed().await;
                    if silent_for > Duration::ZERO && upstream == "named" {
                        // What was dialled for the address is of no use.
                        assert!(!server.more().await);
                        server = world.endpoints[0].handed().await;
                    }
                    while server.received < hello.len() as u64 && server.more().await {}
                    assert_eq!(
                        server.received,
                        hello.len() as u64,
                        "{name}, {silent_for:?}"
                    );
                    drop((caller, server));
                    world.until_all_have_left().await;
                    let line = &world.log()[0];
                    assert_eq!(
                        (&line["protocol"], &line["upstream"]),
                        (&"tls".into(), &upstream.into())
                    );
                    assert_eq!(line["server_name"], name);
                    assert!(!world.endpoints[0].is_reached());
                    world
                },
            );
        }
    }
}

#[test]
fn tls_to_what_speaks_http_alone_is_a_bad_request() {
    play_in(
        1,
        with_named(Protocol::Auto, Protocol::Http1),
        async |world| {
            let mut caller = world.captured(ADDRESS);
            caller.send(client_hello("tls.test")).await;
            assert_eq!(caller.wire.text(12).await, "HTTP/1.1 400");
            world
        },
    );
}

#[test]
fn a_hello_that_breaks_off_is_no_connection() {
    play_in(1, plan(Protocol::Auto), async |world| {
        let mut caller = world.captured(ADDRESS);
        caller.send(&client_hello("tls.test")[..20]).await;
        assert_eq!(caller.wire.rest().await, "");
        world.until_all_have_left().await;
        assert_eq!(world.log(), [] as [serde_json::Value; 0]);
        assert_eq!(world.shared.permits.in_use(), 0);
        world
    });
}
