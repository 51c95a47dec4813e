use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::service::MakeSocket;
use super::*;

/// What the name server says to a query for an A record.
enum Answer {
    Addresses(&'static [[u8; 4]]),
    NameError,
    Silence,
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
            let scripted = &script[asked.load(Ordering::Relaxed).min(script.len() - 1)];
            let (code, addresses) = match scripted {
                Answer::NameError | Answer::Silence => (3, &[][..]),
                Answer::Addresses(addresses) if is_a => (0, *addresses),
                Answer::Addresses(_) => (0, &[][..]),
            };
            if is_a {
                asked.fetch_add(1, Ordering::Relaxed);
            }
            if matches!(scripted, Answer::Silence) {
                continue;
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

/// A directory with a resolv.conf that names loopback, and a hosts file.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let name = format!("dns-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        fs::write(directory.join("hosts"), "10.9.9.9 local.example\n").unwrap();
        Self(directory)
    }

    fn service(&self) -> NameService {
        self.service_with(None)
    }

    fn service_with(&self, sockets: Option<MakeSocket>) -> NameService {
        let files = service::Files::Own {
            resolv_conf: self.0.join("resolv.conf"),
            hosts: self.0.join("hosts"),
        };
        NameService::new(files, sockets)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The first `count` resolutions published, and the failures counted by then.
fn published(
    name: &str,
    service: NameService,
    script: Vec<Answer>,
    count: usize,
) -> (Vec<Vec<String>>, u64) {
    let registry = Arc::new(Registry::default());
    let (sender, mut receiver) = mpsc::channel(8);
    let sender = Mutex::new(sender);
    let resolution = Resolution {
        watched: WatchedName {
            name: name.into(),
            port: 80,
            upstream: registry.upstream("shop"),
            namespace: Namespace::default(),
        },
        service: Arc::new(service),
        server_port: name_server(script),
        registry: Arc::clone(&registry),
        publish: Arc::new(move |_, endpoints| {
            sender.lock().unwrap().try_send(endpoints).unwrap();
        }),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let resolutions = runtime.block_on(async {
        let _task = Task(tokio::spawn(resolution.keep()));
        let mut resolutions = Vec::new();
        for _ in 0..count {
            let endpoints = receiver.recv().await.unwrap();
            resolutions.push(endpoints.iter().map(EndpointAddr::to_string).collect());
        }
        resolutions
    });
    (
        resolutions,
        registry.dns_failures().iter().map(|(_, count)| count).sum(),
    )
}

#[test]
fn a_change_is_published_once_sorted() {
    let files = Files::new("change");
    let (resolutions, failures) = published(
        "shop.example.",
        files.service(),
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
    let files = Files::new("failure");
    let (resolutions, failures) = published(
        "shop.example.",
        files.service(),
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

/// The good answer comes as the `script` ends with it.
fn good_after(name: &str, script: Vec<Answer>) -> Duration {
    let files = Files::new(name);
    let began = clock::now();
    let (resolutions, _) = published("shop.example.", files.service(), script, 1);
    assert_eq!(resolutions, [["10.0.0.1:80"]]);
    clock::now() - began
}

#[test]
fn a_good_answer_is_used_soon_after_many_bad_ones() {
    let mut script: Vec<_> = (0..4).map(|_| Answer::NameError).collect();
    script.push(Answer::Addresses(&[[10, 0, 0, 1]]));
    let took = good_after("many", script);
    assert!(took < Duration::from_secs(8), "four bad ones, {took:?}");
}

/// It was away when it was asked first, and is not waited for.
#[test]
fn a_name_server_that_comes_back_is_asked_again() {
    let script = vec![Answer::Silence, Answer::Addresses(&[[10, 0, 0, 1]])];
    let took = good_after("silent", script);
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn the_hosts_file_needs_no_server() {
    let files = Files::new("hosts");
    let (resolutions, failures) =
        published("local.example", files.service(), vec![Answer::NameError], 1);
    assert_eq!(resolutions, [["10.9.9.9:80"]]);
    assert_eq!(failures, 0);
}

#[test]
fn queries_leave_through_the_sockets_given() {
    let files = Files::new("sockets");
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let make: MakeSocket = Arc::new(move |server, transport| {
        assert_eq!(transport, Transport::Udp);
        assert!(server.ip().is_loopback());
        count.fetch_add(1, Ordering::Relaxed);
        Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.into())
    });
    let service = files.service_with(Some(make));
    let script = vec![Answer::Addresses(&[[10, 0, 0, 1]])];
    let (resolutions, _) = published("shop.example.", service, script, 1);
    assert_eq!(resolutions, [["10.0.0.1:80"]]);
    assert!(made.load(Ordering::Relaxed) >= 1);
}
