//! The harness of the end-to-end tests: the real proxy as a process, servers
//! and clients that do exactly what a test says, cgroups and namespaces that
//! are gone when the test is.
//!
//! Tests see the proxy from outside only: its command line, configuration
//! file, admin API and the bytes on the wire. `AMBASSADOR_BIN` names the
//! binary; `cargo xtask test` sets it.

pub mod cgroup;
pub mod client;
pub mod exposition;
pub mod netns;
pub mod os;
pub mod ports;
pub mod program;
pub mod proxy;
pub mod server;
pub mod terminal;
pub mod wait;

pub use cgroup::Cgroup;
pub use client::{Client, Response};
pub use exposition::Exposition;
pub use netns::Netns;
pub use proxy::{Backend, Proxy};
pub use server::{Connection, Request, Server};
pub use terminal::Terminal;
pub use wait::eventually;

/// Declares each test twice: over io_uring and over epoll. The body is a
/// function that takes the [`Backend`].
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
