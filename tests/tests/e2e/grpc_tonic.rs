//! gRPC between a client and a server of tonic, with the proxy between them.

mod peer;

use std::net::SocketAddr;
use std::time::Duration;

use ambassador_tests::{Backend, Proxy, eventually, on_both_backends};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::{self, wrappers::ReceiverStream};
use tonic::codegen::{Bytes, StdError};
use tonic::{Code, Request};

use peer::{Octets, Peer, client};

on_both_backends!(
    calls_of_all_four_kinds_pass,
    metadata_and_failures_pass,
    large_messages_pass,
    many_calls_at_a_time_pass,
    a_deadline_ends_the_call_on_both_sides,
    a_call_given_up_ends_at_the_server,
);

const SOON: Duration = Duration::from_secs(10);

/// A proxy in front of a server.
struct World {
    peer: Peer,
    listen: SocketAddr,
    _proxy: Proxy,
}

impl World {
    #[track_caller]
    fn start(backend: Backend) -> World {
        let peer = Peer::start();
        let (proxy, listen) = Proxy::in_front_of_with(backend, peer.address, "protocol: grpc");
        World {
            peer,
            listen,
            _proxy: proxy,
        }
    }
}

fn path(method: &str) -> PathAndQuery {
    let path = PathAndQuery::try_from(format!("/test.Peer/{method}"));
    path.expect("a valid path")
}

fn calls_of_all_four_kinds_pass(backend: Backend) {
    let world = World::start(backend);
    let (runtime, mut client) = client(world.listen);
    let passed = runtime.block_on(async {
        client.ready().await?;
        let hello = Request::new(Bytes::from_static(b"hello"));
        let answer = client.unary(hello, path("Echo"), Octets).await?;
        assert_eq!(answer.get_ref(), "hello");

        client.ready().await?;
        let four = Request::new(Bytes::from_static(b"4"));
        let mut answers = client
            .server_streaming(four, path("Count"), Octets)
            .await?
            .into_inner();
        for number in 0..4 {
            let message = answers.message().await?;
            assert_eq!(message, Some(Bytes::from(number.to_string())));
        }
        assert_eq!(answers.message().await?, None);
        assert!(answers.trailers().await?.is_some());

        client.ready().await?;
        let thousand = Bytes::from(vec![b'x'; 1000]);
        let uploaded = Request::new(tokio_stream::iter(vec![thousand; 3000]));
        let total = client
            .client_streaming(uploaded, path("Total"), Octets)
            .await?;
        assert_eq!(total.get_ref(), "3000000");

        client.ready().await?;
        // Each message waits for the answer to the one before.
        let (sender, messages) = mpsc::channel(1);
        sender.send(Bytes::from_static(b"one")).await?;
        let messages = Request::new(ReceiverStream::new(messages));
        let answers = client.streaming(messages, path("Both"), Octets).await?;
        let mut answers = answers.into_inner();
        assert_eq!(answers.message().await?, Some("ONE".into()));
        sender.send(Bytes::from_static(b"two")).await?;
        assert_eq!(answers.message().await?, Some("TWO".into()));
        drop(sender);
        assert_eq!(answers.message().await?, None);
        Ok::<(), StdError>(())
    });
    passed.expect("each call ends well");
}

fn metadata_and_failures_pass(backend: Backend) {
    let world = World::start(backend);
    let (runtime, mut client) = client(world.listen);
    runtime.block_on(async {
        client.ready().await.expect("it is connected");
        let mut request = Request::new(Bytes::new());
        let mine = "1".parse().expect("a valid value");
        request.metadata_mut().insert("x-mine", mine);
        let answer = client.unary(request, path("Echo"), Octets).await;
        let answer = answer.expect("it ends well");
        let initial = answer.metadata().get("x-initial");
        assert_eq!(initial.map(|it| it.as_bytes()), Some(&b"1"[..]));
        client.ready().await.expect("it is connected");
        // It is percent-encoded on its way.
        let failure = client.unary(Request::new(Bytes::new()), path("Fail"), Octets);
        let failure = failure.await.expect_err("as asked");
        assert_eq!(failure.code(), Code::NotFound);
        assert_eq!(failure.message(), "as asked: 100 %");
        assert!(failure.metadata().contains_key("x-trailing"), "{failure:?}");
    });
}

fn large_messages_pass(backend: Backend) {
    let world = World::start(backend);
    let (runtime, mut client) = client(world.listen);
    runtime.block_on(async {
        for length in [0, 1, 16_384, 65_535, 4 << 20, 12 << 20] {
            client.ready().await.expect("it is connected");
            let message = Request::new(Bytes::from(vec![b'x'; length]));
            let answer = client.unary(message, path("Echo"), Octets).await;
            assert_eq!(answer.expect("it ends well").get_ref().len(), length);
        }
    });
}

fn many_calls_at_a_time_pass(backend: Backend) {
    let world = World::start(backend);
    let (runtime, client) = client(world.listen);
    runtime.block_on(async {
        let mut calls = JoinSet::new();
        for number in 0..300 {
            let mut client = client.clone();
            calls.spawn(async move {
                client.ready().await.expect("it is connected");
                let message = Request::new(Bytes::from(vec![b'x'; number]));
                let answer = client.unary(message, path("Echo"), Octets).await;
                assert_eq!(answer.expect("it ends well").get_ref().len(), number);
            });
        }
        assert_eq!(calls.join_all().await.len(), 300);
    });
}

fn a_deadline_ends_the_call_on_both_sides(backend: Backend) {
    let world = World::start(backend);
    let (runtime, mut client) = client(world.listen);
    runtime.block_on(async {
        client.ready().await.expect("it is connected");
        let mut request = Request::new(Bytes::new());
        request.set_timeout(Duration::from_secs(1));
        let failure = client.unary(request, path("Silent"), Octets).await;
        let failure = failure.expect_err("it is never answered");
        // Client, proxy and server each keep time, and tonic calls its own end so.
        let codes = [Code::DeadlineExceeded, Code::Cancelled];
        assert!(codes.contains(&failure.code()), "{failure:?}");
    });
    assert_eq!(world.peer.begun(), 1);
    eventually("the call ends at the server", SOON, || {
        world.peer.ended() == 1
    });
}

fn a_call_given_up_ends_at_the_server(backend: Backend) {
    let world = World::start(backend);
    let (runtime, mut client) = client(world.listen);
    runtime.block_on(async {
        client.ready().await.expect("it is connected");
        let request = Request::new(Bytes::new());
        let answers = client.server_streaming(request, path("Endless"), Octets);
        let mut answers = answers.await.expect("it begins").into_inner();
        assert_eq!(answers.message().await.expect("one"), Some("more".into()));
        assert_eq!((world.peer.begun(), world.peer.ended()), (1, 0));
        drop(answers);
        while world.peer.ended() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}
