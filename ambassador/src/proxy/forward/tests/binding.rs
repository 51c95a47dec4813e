//! Connections on which a client authenticates belong to it alone (NTLM).

use super::SECOND;
use crate::proxy::scripted::{Caller, Connect, HOST, Wire, World, play};
use crate::ring::timer;
use crate::route::settings::Policies;

const OFFER: &str = "HTTP/1.1 401 No\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n";
const PROXY_OFFER: &str =
    "HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

async fn ask(caller: &Caller, fields: &str) {
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n");
    caller.send(head).await;
}

/// An exchange over a connection of which the scenario is the server.
async fn exchange(
    caller: &mut Caller,
    server: &mut Wire,
    fields: &str,
    response: &'static str,
) -> (String, u16) {
    ask(caller, fields).await;
    let head = server.head().await.expect("the request comes over it");
    server.send(response).await;
    let status = caller.answer().await.expect("an answer").status;
    (String::from_utf8(head).expect("it is text"), status)
}

/// An exchange over the next connection that is made: the connection, and the
/// status that came.
async fn first_exchange(
    world: &World,
    caller: &mut Caller,
    fields: &str,
    response: &'static str,
) -> (Wire, u16) {
    ask(caller, fields).await;
    let mut server = world.endpoints[0].handed().await;
    server.head().await.expect("a request");
    server.send(response).await;
    let status = caller.answer().await.expect("an answer").status;
    (server, status)
}

fn hands(world: &World, count: usize) {
    for endpoint in &world.endpoints {
        endpoint.meets(vec![Connect::Hand; count]);
    }
}

#[test]
fn from_the_offer_on_a_connection_is_its_clients() {
    play(1, Policies::default(), 1, async |world| {
        hands(&world, 2);
        let mut caller = world.caller();
        let (mut server, status) = first_exchange(&world, &mut caller, "", OFFER).await;
        assert_eq!(status, 401);
        assert_eq!(world.shared.idle(), 0, "it is in no pool");

        // Somebody else gets another one.
        let mut other = world.caller();
        let (_second, status) = first_exchange(&world, &mut other, "", OK).await;
        assert_eq!(status, 200);
        assert_eq!(world.shared.idle(), 1);

        let credentials = "Authorization: NTLM abc\r\n";
        for fields in [credentials, credentials, ""] {
            let (_, status) = exchange(&mut caller, &mut server, fields, OK).await;
            assert_eq!(status, 200);
        }
        assert_eq!((world.connected(), world.shared.idle()), (2, 1));
        // It is closed with that of its client.
        drop(caller);
        assert!(!server.more().await);
        world
    });
}

#[test]
fn credentials_alone_bind_as_well() {
    play(1, Policies::default(), 1, async |world| {
        hands(&world, 1);
        let mut caller = world.caller();
        let (server, status) =
            first_exchange(&world, &mut caller, "Authorization: Negotiate abc\r\n", OK).await;
        assert_eq!(status, 200);
        assert_eq!(world.shared.idle(), 0);
        // Its end is that of the client's connection.
        drop(server);
        assert_eq!(caller.wire.rest().await, "");
        world
    });
}

#[test]
fn a_mere_offer_is_forgotten_where_its_connection_ends() {
    play(1, Policies::default(), 1, async |world| {
        hands(&world, 1);
        let mut caller = world.caller();
        let (server, status) = first_exchange(&world, &mut caller, "", OFFER).await;
        assert_eq!(status, 401);
        drop(server);
        timer::sleep(SECOND).await;
        assert_eq!(caller.get().await.expect("an answer").status, 200);
        world
    });
}

#[test]
fn nothing_stands_in_for_a_connection_on_which_a_client_has_authenticated() {
    // Whether it ends in the answer, or amid a request.
    for response in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nrest",
    ] {
        play(1, Policies::default(), 1, async move |world| {
            hands(&world, 1);
            let mut caller = world.caller();
            ask(&caller, "Authorization: NTLM abc\r\n").await;
            let mut server = world.endpoints[0].handed().await;
            server.head().await.expect("a request");
            server.send(response).await;
            server.stream.shutdown_write();
            assert_eq!(caller.answer().await.expect("an answer").status, 200);
            assert_eq!(caller.wire.rest().await, "");
            world
        });
    }
    play(1, Policies::default(), 1, async |world| {
        hands(&world, 1);
        let mut caller = world.caller();
        let (mut server, status) =
            first_exchange(&world, &mut caller, "Authorization: NTLM abc\r\n", OK).await;
        assert_eq!(status, 200);
        ask(&caller, "").await;
        server.head().await.expect("a request");
        drop(server);
        let answer = caller.answer().await.expect("an answer");
        assert_eq!(
            (answer.status, answer.reason()),
            (502, Some("upstream-reset"))
        );
        assert_eq!(world.connected(), 1, "no other one was asked");
        world
    });
}

#[test]
fn its_requests_go_to_the_endpoint_of_its_connection() {
    for seed in 0..6 {
        play(seed, Policies::default(), 3, async |world| {
            hands(&world, 1);
            let mut caller = world.caller();
            ask(&caller, "").await;
            timer::sleep(SECOND).await;
            let endpoint = world.endpoints.iter().find(|one| one.is_reached());
            let mut server = endpoint.expect("one").handed().await;
            server.head().await.expect("a request");
            server.send(OFFER).await;
            assert_eq!(caller.answer().await.expect("an answer").status, 401);
            for _ in 0..3 {
                let fields = "Authorization: NTLM abc\r\n";
                assert_eq!(exchange(&mut caller, &mut server, fields, OK).await.1, 200);
            }
            world
        });
    }
}

#[test]
fn credentials_for_a_proxy_go_on_where_the_upstream_has_asked_for_them() {
    let credentials = "Proxy-Authorization: NTLM abc\r\n";
    for (offer, goes_on) in [(PROXY_OFFER, true), (OFFER, false)] {
        play(1, Policies::default(), 1, async move |world| {
            hands(&world, 1);
            let mut caller = world.caller();
            let (mut server, _) = first_exchange(&world, &mut caller, "", offer).await;
            let (head, _) = exchange(&mut caller, &mut server, credentials, OK).await;
            assert_eq!(head.contains("Proxy-Authorization"), goes_on, "{head}");
            world
        });
    }
}
