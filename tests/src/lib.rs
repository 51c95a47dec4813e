//! The harness of the end-to-end tests: the real proxy as a process, servers
//! and clients that do exactly what a test says, cgroups and namespaces that
//! are gone when the test is.
//!
//! Tests see the proxy from outside only: its command line, configuration
//! file, admin API and the bytes on the wire. `AMBASSADOR_BIN` names the
//! binary; `cargo xtask test` sets it.

pub mod caller;
pub mod cgroup;
pub mod client;
pub mod column;
pub mod envoy;
pub mod exchange;
pub mod exposition;
pub mod grpc;
pub mod hello;
pub mod http2;
pub mod line;
pub mod message;
pub mod netns;
pub mod nginx;
pub mod openbao;
pub mod os;
pub mod pki;
pub mod ports;
pub mod program;
pub mod proxy;
pub mod server;
pub mod session;
pub mod terminal;
pub mod wait;
pub mod workload_api;

pub use caller::Caller;
pub use cgroup::Cgroup;
pub use client::{Carried, Client, Response};
pub use column::{Column, Protocol};
pub use exchange::Exchange;
pub use exposition::Exposition;
pub use grpc::{GrpcCall, GrpcServer, Leaving, Outcome, Received, Script};
pub use message::{Answer, Call};
pub use netns::Netns;
pub use openbao::OpenBao;
pub use pki::{Authority, Leaf};
pub use proxy::{Backend, Proxy};
pub use server::{Connection, Request, Server};
pub use session::Session;
pub use terminal::Terminal;
pub use wait::eventually;

/// Declares each test twice: over io_uring and over epoll. The body is a function
/// that takes the [`Backend`]. For what is no matter of how requests are carried;
/// a test of the way of a request is declared by [`matrix!`].
#[macro_export]
macro_rules! on_both_backends {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            #[test]
            fn io_uring() {
                super::$name($crate::Backend::Ring);
            }
            #[test]
            fn epoll() {
                super::$name($crate::Backend::Epoll);
            }
        })+
    };
}

/// The same for tests of HTTP/1 itself: they send its bytes or look at them, and
/// have no other column. The test is `name::http1::io_uring`, and so on.
#[macro_export]
macro_rules! on_http1 {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            mod http1 {
                #[test]
                fn io_uring() {
                    super::super::$name($crate::Backend::Ring);
                }
                #[test]
                fn epoll() {
                    super::super::$name($crate::Backend::Epoll);
                }
            }
        })+
    };
}
