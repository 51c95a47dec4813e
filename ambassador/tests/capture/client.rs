//! The client that runs inside a cgroup: connects, prints its peer or the error.

use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::SocketAddrV4;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

pub fn client(destination: &str, how: &str) -> ExitCode {
    if how == "flood" {
        // Every connect is refused at once; what counts is what it interned.
        let (start, count) = destination
            .split_once('+')
            .unwrap_or(("10.8.0.0", destination));
        let start: Ipv4Addr = start.parse().expect("an address");
        let count: u32 = count.parse().expect("a number");
        for i in 0..count {
            let ip = Ipv4Addr::from_bits(u32::from(start) + i);
            let error = TcpStream::connect((ip, 80))
                .expect_err("nobody there")
                .kind();
            assert_eq!(error, ErrorKind::ConnectionRefused);
        }
        return ExitCode::SUCCESS;
    }
    if how == "say" {
        say(destination);
        return ExitCode::SUCCESS;
    }
    if how == "again" {
        return again(destination);
    }
    if how == "hold" {
        return hold(destination);
    }
    if how == "hammer" {
        hammer(destination);
        return ExitCode::SUCCESS;
    }
    let shown = connect_as(destination, how).map_or_else(
        |error| format!("{:?}", error.kind()),
        |peer| peer.to_string(),
    );
    println!("{shown}");
    ExitCode::SUCCESS
}

/// Connects to an address and the three behind it, on several threads at once,
/// and says over each connection where it was to go. Where minutes pass within a
/// connect, the guard finds that its slot has gone on, and refuses it.
fn say(destination: &str) {
    let first: SocketAddrV4 = destination.parse().expect("an address");
    thread::scope(|scope| {
        for thread in 0..8 {
            let ip = Ipv4Addr::from_bits(first.ip().to_bits() + thread % 4);
            let destination = SocketAddr::from((ip, first.port()));
            scope.spawn(move || {
                for _ in 0..100 {
                    let mut stream = match TcpStream::connect(destination) {
                        Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
                        connected => connected.expect("captured"),
                    };
                    let shown = stream.peer_addr().expect("connected");
                    assert_eq!(shown, destination);
                    let said = destination.to_string();
                    stream.write_all(said.as_bytes()).expect("it listens");
                }
            });
        }
    });
}

/// Connects, and prints its peer for each line that it reads.
fn hold(destination: &str) -> ExitCode {
    let destination: SocketAddr = destination.parse().expect("an address");
    let stream = TcpStream::connect(destination).expect("captured");
    for _ in std::io::stdin().lines() {
        println!("{}", stream.peer_addr().expect("connected"));
    }
    ExitCode::SUCCESS
}

/// Connects; for each address that it reads, ends the connection, connects the
/// same socket there and prints what came of it.
fn again(destination: &str) -> ExitCode {
    let destination: SocketAddr = destination.parse().expect("an address");
    let stream = TcpStream::connect(destination).expect("captured");
    for line in std::io::stdin().lines() {
        let line = line.expect("UTF-8");
        let to: SocketAddrV4 = line.parse().expect("an address");
        reconnect(&stream, libc::AF_UNSPEC, to).expect("a connection ends");
        match reconnect(&stream, libc::AF_INET, to) {
            Ok(()) => println!("connected"),
            Err(error) => println!("{:?}", error.kind()),
        }
    }
    ExitCode::SUCCESS
}

fn reconnect(stream: &TcpStream, family: libc::c_int, to: SocketAddrV4) -> std::io::Result<()> {
    let address = libc::sockaddr_in {
        sin_family: family as u16,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: to.ip().to_bits().to_be(),
        },
        sin_zero: [0; 8],
    };
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is live and of the length given.
    #[expect(unsafe_code, reason = "std connects a socket once")]
    match unsafe { libc::connect(stream.as_raw_fd(), (&raw const address).cast(), length) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Connects again and again, on several threads at once, until standard input
/// ends.
fn hammer(destination: &str) {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let _ = connect_as(destination, "");
                }
            });
        }
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ended.store(true, Ordering::Relaxed);
    });
}

fn connect_as(destination: &str, how: &str) -> std::io::Result<SocketAddr> {
    let destination: SocketAddr = destination.parse().expect("an address");
    match how {
        "udp" => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(destination)?;
            socket.peer_addr()
        }
        "udp-send" => {
            UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", destination)?;
            Ok(destination)
        }
        "" => TcpStream::connect_timeout(&destination, Duration::from_millis(300))?.peer_addr(),
        "mptcp" => connect_multipath(destination),
        device => connect_through(device, destination),
    }
}

/// A connect bound to a device; never blocks.
fn connect_through(device: &str, destination: SocketAddr) -> std::io::Result<SocketAddr> {
    let SocketAddr::V4(to) = destination else {
        panic!("IPv4 only")
    };
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: to.ip().to_bits().to_be(),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: plain socket calls on live values of the lengths given.
    #[expect(unsafe_code, reason = "SO_BINDTODEVICE before connect() is not in std")]
    let result = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
        assert!(fd >= 0);
        let name = device.as_ptr().cast();
        let length = device.len() as libc::socklen_t;
        assert_eq!(
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name, length),
            0
        );
        libc::connect(
            fd,
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(std::io::Error::last_os_error())
    } else {
        Ok(destination)
    }
}

/// A connect of a multipath TCP socket; says what getpeername() says.
fn connect_multipath(destination: SocketAddr) -> std::io::Result<SocketAddr> {
    use std::os::fd::FromRawFd;
    let SocketAddr::V4(to) = destination else {
        panic!("IPv4 only")
    };
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: to.ip().to_bits().to_be(),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: plain socket calls on live values; the descriptor is new.
    #[expect(unsafe_code, reason = "multipath sockets are not in std")]
    let stream = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP);
        assert!(fd >= 0, "this test needs a kernel with MPTCP");
        let stream = TcpStream::from_raw_fd(fd);
        let length = size_of_val(&address) as libc::socklen_t;
        if libc::connect(fd, (&raw const address).cast(), length) < 0 {
            return Err(std::io::Error::last_os_error());
        }
        stream
    };
    stream.peer_addr()
}
