//! The client that runs inside a cgroup: connects, prints its peer or the error.

use std::io::ErrorKind;
use std::io::Read;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

pub fn client(destination: &str, how: &str) -> ExitCode {
    if how == "flood" {
        // Every connect is refused at once; what counts is what it interned.
        let count: u32 = destination.parse().expect("a number");
        for i in 0..count {
            let ip = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 8, 0, 0)) + i);
            let error = TcpStream::connect((ip, 80))
                .expect_err("nobody there")
                .kind();
            assert_eq!(error, ErrorKind::ConnectionRefused);
        }
        return ExitCode::SUCCESS;
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
