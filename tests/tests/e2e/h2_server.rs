//! HTTP/2 towards clients, beyond the cases of h2spec, which are those of
//! `h2_conformance`: what more a client may send by RFC 9113 and RFC 7541, and what more
//! it may not. What it gets is looked at frame by frame.

mod accepted;
mod case;
mod connection;
mod frames;
mod messages;

use std::net::SocketAddr;

use ambassador_tests::http2::{Frame, Peer};
use ambassador_tests::server::{Connection, Request, text};
use ambassador_tests::{Backend, Proxy, Server, on_both_backends};

use case::Case;

on_both_backends!(
    what_is_no_preface_ends_the_connection,
    frames_are_accepted,
    requests_are_answered,
    fields_are_read_in_every_representation,
    field_blocks_that_are_none_end_the_connection,
    frames_as_such_are_checked,
    streams_have_states,
    frames_of_streams_are_checked,
    frames_of_connections_are_checked,
    windows_are_kept_to,
    malformed_fields_end_the_stream,
    malformed_pseudo_fields_end_the_stream,
    malformed_exchanges_end_the_stream,
);

/// An upstream that takes every request. `/silent` is never answered, `/echo` tells of
/// the request, `/large` is more than a window.
pub fn upstream() -> Server {
    Server::start(|connection| {
        while let Some(mut request) = connection.head()? {
            if request.target == "/silent" {
                return until_end(connection);
            }
            connection.body(&mut request)?;
            connection.record(&request);
            connection.write(match request.target.as_str() {
                "/echo" => text(&told(&request)),
                "/large" => text(&"x".repeat(200_000)),
                _ if request.method == "HEAD" => {
                    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".to_vec()
                }
                _ => text("ok"),
            })?;
        }
        Ok(())
    })
}

fn until_end(connection: &mut Connection) -> std::io::Result<()> {
    while connection.read(&mut [0; 4096])? > 0 {}
    Ok(())
}

/// All of a request that is not of HTTP/1.
fn told(request: &Request) -> String {
    let fields = request.fields.iter();
    let fields = fields.map(|(name, value)| format!("field {name}={value}\n"));
    let trailers = request.trailers.iter();
    let trailers = trailers.map(|(name, value)| format!("trailer {name}={value}\n"));
    let body = String::from_utf8_lossy(&request.body);
    format!(
        "{}{}body={body}",
        fields.collect::<String>(),
        trailers.collect::<String>()
    )
}

/// Plays all of them, each over a connection of its own, and tells of those that fail.
#[track_caller]
fn hold(backend: Backend, cases: &[Case]) {
    let server = upstream();
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let wrong = play(listen, cases);
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    let bad: Vec<_> = server.requests();
    let bad: Vec<_> = bad
        .iter()
        .filter(|it| it.target.contains(messages::BAD))
        .collect();
    assert!(bad.is_empty(), "malformed and passed on: {bad:?}");
}

/// Each case.
pub fn all() -> Vec<Case> {
    let groups = [
        accepted::frames(),
        accepted::requests(),
        accepted::representations(),
        connection::field_blocks(),
        connection::frames(),
        connection::streams(),
        frames::of_streams(),
        frames::of_connections(),
        frames::flow_control(),
        messages::fields(),
        messages::pseudo_fields(),
        messages::exchanges(),
    ];
    groups.into_iter().flatten().collect()
}

/// What fails of them.
pub fn play(server: SocketAddr, cases: &[Case]) -> Vec<String> {
    let verdicts = cases.iter().map(|case| case.play(server));
    verdicts.filter_map(Result::err).collect()
}

fn what_is_no_preface_ends_the_connection(backend: Backend) {
    let server = upstream();
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    for (what, bytes) in connection::beginnings() {
        let mut peer = Peer::connect(listen);
        peer.put(&bytes).expect("the server takes what is sent");
        assert!(case::is_ended(&mut peer), "RFC 9113 3.4: {what}");
    }
    let mut after = Peer::connect(listen);
    after.greet(&[]).expect("the server is there");
    after
        .send(&Frame::get(1, "/"))
        .expect("the server is there");
    after.headers().expect("an answer");
    assert_eq!(after.field(":status"), "200");
}

fn frames_are_accepted(backend: Backend) {
    hold(backend, &accepted::frames());
}

fn requests_are_answered(backend: Backend) {
    hold(backend, &accepted::requests());
}

fn fields_are_read_in_every_representation(backend: Backend) {
    hold(backend, &accepted::representations());
}

fn field_blocks_that_are_none_end_the_connection(backend: Backend) {
    hold(backend, &connection::field_blocks());
}

fn frames_as_such_are_checked(backend: Backend) {
    hold(backend, &connection::frames());
}

fn streams_have_states(backend: Backend) {
    hold(backend, &connection::streams());
}

fn frames_of_streams_are_checked(backend: Backend) {
    hold(backend, &frames::of_streams());
}

fn frames_of_connections_are_checked(backend: Backend) {
    hold(backend, &frames::of_connections());
}

fn windows_are_kept_to(backend: Backend) {
    hold(backend, &frames::flow_control());
}

fn malformed_fields_end_the_stream(backend: Backend) {
    hold(backend, &messages::fields());
}

fn malformed_pseudo_fields_end_the_stream(backend: Backend) {
    hold(backend, &messages::pseudo_fields());
}

fn malformed_exchanges_end_the_stream(backend: Backend) {
    hold(backend, &messages::exchanges());
}
