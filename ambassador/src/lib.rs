//! The ambassador as a library: a proxy for the outbound calls of programs
//! that know nothing of it. `main.rs` calls [`main`].
//!
//! # Modules, lowest first
//!
//! A module imports only from its own line and those above; `cargo xtask tidy`
//! holds this.
//!
//! - [`addr`], [`clock`], [`together`], [`visible`]: roles of addresses; the only
//!   reader of time and randomness; two futures in one task; what others wrote, as
//!   a log or a terminal may show it
//! - [`message`]: heads, fields, local replies, whatever carries them; no I/O
//! - [`http1`]: the codec of HTTP/1; [`sniff`]: which protocol the first bytes are of
//! - [`policy`]: retries, breaker, limits, balancing: pure functions of state
//!   and time
//! - [`route`]: the immutable table from destination or request to upstream
//! - [`telemetry`]: counters of a shard, the request record, the access log
//! - [`ring`]: executor, io_uring and epoll, streams, buffers, timers
//! - [`transport`]: what carries the bytes of a connection: a stream in clear
//! - [`workload`]: cgroups, namespaces, capabilities, the privileged helper
//! - [`capture`]: BPF programs, token table, canary; iptables rules
//! - [`upstream`]: dial, pool, permits
//! - [`proxy`]: an accepted connection: sniffed, forwarded or relayed
//! - [`shard`]: a thread that owns all of the above for its connections
//! - [`control`]: admin API, signals, file watch, names; on tokio
//! - [`config`]: the file, checked
//! - [`doctor`], [`exec`]: what the machine lacks; a captured command
//! - [`app`], [`cli`]: the commands, wired
//! - [`testing`]: what tests, benchmarks and fuzz targets reach
//!
//! Outside of the crate are [`main`], [`command`] and what [`testing`] lists;
//! all else is `pub(crate)` or less, so that the compiler finds what nothing
//! uses.
//!
//! # The life of one request
//!
//! `shard::accept` takes the connection and finds its original destination;
//! `proxy::accepted` tells HTTP from opaque bytes; `proxy::http1` reads a head.
//! Then `proxy::forward`, straight through: route, limits, breaker, endpoint,
//! identity, encode; then tries, each a pool or dial and an exchange, until one
//! is answered or none may follow. A drop guard writes the record, for cancelled
//! work too.
//!
//! # Invariants
//!
//! - A request never leaves its shard.
//! - No shared receive buffer is held across a wait on a peer.
//! - A socket is closed after every completion of its operations was taken.
//! - The proxy uses no privilege after the start.
//! - Every queue has a limit. Peer input never panics.
//! - A request in flight keeps the configuration it started with.
//!
//! # Deliberately absent
//!
//! Kernel state per connection, repair of ambiguous messages, and a second
//! runtime on the way of a request. TLS and HTTP/2 are not here yet.

#![deny(unreachable_pub)]

mod addr;
mod app;
mod capture;
mod cli;
mod clock;
mod combinators;
mod config;
mod control;
mod doctor;
mod exec;
mod http1;
mod message;
mod policy;
mod printable;
mod proxy;
mod ring;
mod route;
mod shard;
mod sniff;
mod telemetry;
pub mod testing;
mod transport;
mod upstream;
mod workload;

pub use app::main;
pub use cli::command;
