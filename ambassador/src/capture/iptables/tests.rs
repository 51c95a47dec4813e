//! Real rules of both backends in a namespace of the test's own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;
use crate::workload::cgroup::{self, own_cgroup};
use crate::workload::{Cgroup, Family, Kind, SocketSpec, sockets};

/// A namespace with a cgroup, in which every address has a route, to lo.
struct Place {
    name: String,
    netns: Netns,
    cgroup: Cgroup,
}

impl Place {
    fn new(what: &str) -> Self {
        let name = format!("amb-B-{what}-{}", std::process::id());
        run(&["ip", "netns", "add", &name]);
        let netns = Netns::open(Path::new("/run/netns").join(&name).as_path()).unwrap();
        let cgroup = Cgroup::create(&own_cgroup().unwrap(), &name).unwrap();
        let place = Self {
            name,
            netns,
            cgroup,
        };
        let routes = || {
            run(&["ip", "link", "set", "lo", "up"]);
            run(&[
                "ip",
                "route",
                "add",
                "default",
                "dev",
                "lo",
                "src",
                "127.0.0.1",
            ]);
            run(&["ip", "-6", "route", "add", "default", "dev", "lo"]);
        };
        place.netns.run(routes).unwrap();
        place
    }

    /// A client in the cgroup and the namespace, which connects to `to` and
    /// stays until its input ends.
    fn client(&self, to: &str) -> Child {
        let to: SocketAddr = to.parse().unwrap();
        let connect = format!(
            "socket.create_connection(('{}',{}),0.5)",
            to.ip(),
            to.port()
        );
        let script = format!("import socket,sys\ns={connect}\nsys.stdin.read()");
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "echo $$ > \"$1\"; exec python3 -c \"$2\"", "sh"])
            .arg(self.cgroup.path().join("cgroup.procs"))
            .arg(script)
            .stdin(Stdio::piped())
            .stderr(Stdio::null());
        self.netns.run(|| shell.spawn().unwrap()).unwrap()
    }

    fn rules(&self, proxy_port: u16) -> Rules {
        Rules {
            owner: std::process::id(),
            cgroups: vec![self.cgroup.path().to_owned()],
            proxy_port,
            include: Scope::default(),
            exclude: Scope::default(),
            claims: None,
            refuse_quic: true,
            exempt_mark: None,
        }
    }

    fn saved(&self) -> String {
        let tools = [
            "iptables-nft",
            "iptables-legacy",
            "ip6tables-nft",
            "ip6tables-legacy",
        ];
        let save = |tool| {
            Command::new(format!("{tool}-save"))
                .output()
                .unwrap()
                .stdout
        };
        let all = self.netns.run(|| tools.map(save).concat()).unwrap();
        String::from_utf8(all).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
        let _ = cgroup::remove(self.cgroup.path());
    }
}

fn run(words: &[&str]) {
    assert!(
        Command::new(words[0])
            .args(&words[1..])
            .status()
            .unwrap()
            .success(),
        "{words:?}"
    );
}

/// Where the proxy believes a client in the cgroup meant to go.
fn captured(place: &Place, listener: &TcpListener, to: &str) -> SocketAddr {
    let mut client = place.client(to);
    let (stream, _) = listener.accept().unwrap();
    let original = original_dst(stream.as_fd(), stream.local_addr().unwrap()).unwrap();
    drop(client.stdin.take());
    assert!(client.wait().unwrap().success());
    original.unwrap().0
}

fn with_backend(backend: Backend) {
    let place = Place::new(&backend.to_string());
    let listener = place
        .netns
        .run(|| TcpListener::bind("[::]:0").unwrap())
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    let rules = Rules {
        exclude: Scope {
            ports: vec![25],
            cidrs: vec!["10.9.0.0/16".parse().unwrap()],
        },
        ..place.rules(port)
    };
    assert_eq!(
        install(&rules, &place.netns, Some(backend)).unwrap(),
        backend
    );
    // Set up again: replaced, not doubled.
    install(&rules, &place.netns, Some(backend)).unwrap();
    assert_eq!(place.saved().matches("-A OUTPUT -p tcp").count(), 2);
    assert_eq!(owners(&place.netns).unwrap(), [std::process::id()]);

    for to in ["10.1.2.3:80", "[2001:db8::7]:443"] {
        assert_eq!(captured(&place, &listener, to), to.parse().unwrap());
    }
    // Out of scope, or from outside the cgroup: not taken, so the listener sees
    // only the call that is meant for it.
    for to in ["10.9.1.1:80", "10.1.2.3:25"] {
        assert!(!place.client(to).wait().unwrap().success());
    }
    let outside = || {
        let limit = Duration::from_millis(100);
        assert!(TcpStream::connect_timeout(&"10.1.2.3:80".parse().unwrap(), limit).is_err());
        let direct = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        assert_eq!(peer.port(), direct.local_addr().unwrap().port());
        assert_eq!(
            original_dst(stream.as_fd(), stream.local_addr().unwrap()).unwrap(),
            None
        );
    };
    place.netns.run(outside).unwrap();

    remove(&place.netns, std::process::id()).unwrap();
    assert!(!place.saved().contains(CHAIN_PREFIX), "{}", place.saved());
}

#[test]
fn nft_rules_take_the_cgroup_and_leave_nothing() {
    with_backend(Backend::Nft);
}

#[test]
fn legacy_rules_take_the_cgroup_and_leave_nothing() {
    with_backend(Backend::Legacy);
}

#[test]
fn with_claims_only_those_are_taken() {
    let place = Place::new("claims");
    let listener = place
        .netns
        .run(|| TcpListener::bind("127.0.0.1:0").unwrap())
        .unwrap();
    let claims = vec![
        ("10.1.0.0/16".parse().unwrap(), Some(80)),
        ("10.2.0.0/16".parse().unwrap(), None),
    ];
    let rules = Rules {
        claims: Some(claims),
        include: Scope {
            ports: (80..100).chain([443]).collect(),
            cidrs: Vec::new(),
        },
        ..place.rules(listener.local_addr().unwrap().port())
    };
    install(&rules, &place.netns, None).unwrap();
    for to in ["10.1.2.3:80", "10.2.2.3:443"] {
        assert_eq!(captured(&place, &listener, to), to.parse().unwrap());
    }
    for to in ["10.1.2.3:443", "10.3.0.1:80", "10.2.2.3:8080"] {
        assert!(!place.client(to).wait().unwrap().success());
    }
}

#[test]
fn rules_are_replaced_in_place() {
    for backend in Backend::ALL {
        let place = Place::new(&format!("replace-{backend}"));
        let other = Cgroup::create(&own_cgroup().unwrap(), &format!("{}-2", place.name)).unwrap();
        let listener = place
            .netns
            .run(|| TcpListener::bind("127.0.0.1:0").unwrap())
            .unwrap();
        let mut rules = place.rules(listener.local_addr().unwrap().port());
        rules.refuse_quic = false;
        let installed = |rules: &Rules| {
            let used = install(rules, &place.netns, None);
            assert_eq!(used.unwrap(), backend);
            place.saved()
        };
        // The first time a backend is named; later the one that has rules is
        // found.
        install(&rules, &place.netns, Some(backend)).unwrap();
        let jumps = |saved: &str, protocol: &str| {
            saved.matches(&format!("-A OUTPUT -p {protocol}")).count()
        };
        rules.cgroups.push(other.path().to_owned());
        rules.exclude.ports = vec![80];
        let saved = installed(&rules);
        assert_eq!((jumps(&saved, "tcp"), jumps(&saved, "udp")), (2, 0));
        assert!(saved.contains(&format!("{}-2", place.name)), "{saved}");
        assert!(!place.client("10.1.2.3:80").wait().unwrap().success());
        let to = "10.1.2.3:81";
        assert_eq!(captured(&place, &listener, to), to.parse().unwrap());

        rules.refuse_quic = true;
        rules.cgroups.remove(0);
        for _ in 0..2 {
            let saved = installed(&rules);
            assert_eq!((jumps(&saved, "tcp"), jumps(&saved, "udp")), (2, 2));
        }
        assert!(!place.client(to).wait().unwrap().success());
        rules.refuse_quic = false;
        assert_eq!(jumps(&installed(&rules), "udp"), 0);
        cgroup::remove(other.path()).unwrap();
    }
}

#[test]
fn a_cgroup_outside_the_hierarchy_is_refused() {
    let rules = Rules {
        owner: 1,
        cgroups: vec!["/nowhere".into()],
        proxy_port: 1,
        include: Scope::default(),
        exclude: Scope::default(),
        claims: None,
        refuse_quic: false,
        exempt_mark: None,
    };
    let installed = install(&rules, &Netns::own().unwrap(), None);
    assert!(matches!(installed, Err(IptablesError::Cgroup(_))));
}

/// A connect() of a marked socket that does not wait for its end.
#[expect(unsafe_code, reason = "std connects only what it makes itself")]
fn connect_marked(mark: u32, to: [u8; 4], port: u16) -> std::os::fd::OwnedFd {
    let spec = SocketSpec {
        family: Family::V4,
        kind: Kind::Stream,
        count: 1,
        mark: Some(mark),
    };
    let socket = sockets::make(&spec).unwrap().remove(0);
    let to = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(to),
        },
        sin_zero: [0; 8],
    };
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: the address is a live sockaddr_in of the size given.
    let connected = unsafe { libc::connect(fd, (&raw const to).cast(), size_of_val(&to) as u32) };
    assert_eq!(connected, -1);
    assert_eq!(
        io::Error::last_os_error().raw_os_error(),
        Some(libc::EINPROGRESS)
    );
    socket
}

#[test]
fn a_marked_socket_is_exempt_where_the_cgroup_is_no_help() {
    let place = Place::new("mark");
    let listener = place
        .netns
        .run(|| TcpListener::bind("127.0.0.1:0").unwrap())
        .unwrap();
    let root = find_cgroup2().unwrap();
    let rules = Rules {
        cgroups: vec![root],
        exempt_mark: Some(7),
        ..place.rules(listener.local_addr().unwrap().port())
    };
    install(&rules, &place.netns, None).unwrap();
    let connect = || {
        let exempt = connect_marked(7, [10, 1, 2, 3], 80);
        let taken = TcpStream::connect("10.1.2.3:81").unwrap();
        let marked_otherwise = connect_marked(8, [10, 1, 2, 3], 82);
        for port in [81, 82] {
            let (stream, _) = listener.accept().unwrap();
            let local = stream.local_addr().unwrap();
            let original = original_dst(stream.as_fd(), local).unwrap().unwrap();
            assert_eq!(original.0.port(), port);
        }
        (exempt, taken, marked_otherwise)
    };
    place.netns.run(connect).unwrap();
}
