//! The two ends of the latency benchmark: a load generator, and the upstream
//! that answers it. Each is one thread around one epoll instance, so that what
//! they cost beside a proxy under test is small and the same for all of them.
//!
//! | module | is |
//! |---|---|
//! | `protocol` | what is asked and answered: HTTP/1.1, or an opaque exchange |
//! | `poller`, `sockets`, `process` | epoll; sockets; what a process asks of the kernel for itself |
//! | `serve` | the upstream |
//! | `run` | the generator: closed loop, or open loop at a constant rate |
//! | `crosscheck` | the same load from `wrk` and `h2load`, beside ours |
//! | `cli` | the command line |
//!
//! Invariants:
//!
//! - A latency counts from when the request was due, not from when it could be
//!   sent (`run::open_loop`): a server that stalls delays everything due
//!   meanwhile, and that shows.
//! - Every answer is checked; nothing that went wrong is in a histogram.
//! - The generator is an ordinary client: socket, connect, send, recv.
//! - No run is endless: what is unanswered at the deadline is an error.
//!
//! Deliberately absent: an async runtime (its timers tick in milliseconds), more
//! than one thread, HTTP/2 and TLS.

pub mod cli;
pub mod crosscheck;
pub mod failure;
mod poller;
mod process;
pub mod protocol;
pub mod run;
pub mod serve;
mod sockets;
