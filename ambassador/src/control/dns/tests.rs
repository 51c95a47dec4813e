use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use super::*;

/// What the name server says to a query for an A record.
enum Answer {
    Addresses(&'static [[u8; 4]]),
    NameError,
}

/// Answers the n-th A query as the script says, the last for ever; AAAA with
/// nothing. RFC 1035 sections 4.1.1 to 4.1.3.
fn name_server(script: Vec<Answer>) -> u16 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let asked = AtomicUsize::new(0);
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            let mut end = 12;
            while query[end] != 0 {
                end += usize::from(query[end]) + 1;
            }
            let question = &query[12..end + 5];
            let is_a = query[end + 2] == 1;
            assert!(length >= end + 5);
            let (code, addresses) =
                match &script[asked.load(Ordering::Relaxed).min(script.len() - 1)] {
                    Answer::NameError => (3, &[][..]),
                    Answer::Addresses(addresses) if is_a => (0, *addresses),
                    Answer::Addresses(_) => (0, &[][..]),
                };
            if is_a {
                asked.fetch_add(1, Ordering::Relaxed);
            }
            let mut reply = query[..2].to_vec();
            reply.extend([
                0x85,
                0x80 | code,
                0,
                1,
                0,
                addresses.len() as u8,
                0,
                0,
                0,
                0,
            ]);
            reply.extend(question);
            for address in addresses {
                // A pointer to the question's name, type A, class IN, TTL 0.
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
                reply.extend(address);
            }
            socket.send_to(&reply, from).unwrap();
        }
    });
    port
}

fn resolver(port: u16) -> Result<TokioResolver, NetError> {
    let mut server = NameServerConfig::udp(Ipv4Addr::LOCALHOST.into());
    server.connections[0].port = port;
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().cache_size = 0;
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build()
}

/// The first `count` resolutions published, and the failures counted by then.
fn published(script: Vec<Answer>, count: usize) -> (Vec<Vec<String>>, u64) {
    let port = name_server(script);
    let registry = Arc::new(Registry::default());
    let watched = Watched {
        name: "shop.example.".into(),
        port: 80,
        upstream: registry.upstream("shop"),
    };
    let (sender, mut receiver) = mpsc::channel(8);
    let sender = Mutex::new(sender);
    let publish: Publish = Arc::new(move |_, endpoints| {
        sender.lock().unwrap().try_send(endpoints).unwrap();
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let resolutions = runtime.block_on(async {
        let keep = keep_resolved(
            watched,
            move || resolver(port),
            Arc::clone(&registry),
            publish,
        );
        let _task = Task(tokio::spawn(keep));
        let mut resolutions = Vec::new();
        for _ in 0..count {
            let endpoints = receiver.recv().await.unwrap();
            resolutions.push(endpoints.iter().map(EndpointAddr::to_string).collect());
        }
        resolutions
    });
    (resolutions, registry.dns_failures().iter().sum())
}

#[test]
fn a_change_is_published_once_sorted() {
    let (resolutions, failures) = published(
        vec![
            Answer::Addresses(&[[10, 0, 0, 2], [10, 0, 0, 1]]),
            Answer::Addresses(&[[10, 0, 0, 1], [10, 0, 0, 2]]),
            Answer::Addresses(&[[10, 0, 0, 3]]),
        ],
        2,
    );
    assert_eq!(resolutions[0], ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(resolutions[1], ["10.0.0.3:80"]);
    assert_eq!(failures, 0);
}

#[test]
fn a_failure_is_counted_and_publishes_nothing() {
    let (resolutions, failures) = published(
        vec![
            Answer::Addresses(&[[10, 0, 0, 1]]),
            Answer::NameError,
            Answer::Addresses(&[[10, 0, 0, 2]]),
        ],
        2,
    );
    assert_eq!(resolutions, [["10.0.0.1:80"], ["10.0.0.2:80"]]);
    assert_eq!(failures, 1);
}
