//! The ambassador as a library: a proxy for the outbound calls of programs
//! that know nothing of it. `main.rs` calls [`main`].
//!
//! ARCHITECTURE.md is the guide: it has the table of modules, follows one request
//! through the files, and lists what always holds in each part.
//!
//! Public are [`main`], [`command`] and what [`testing`] lists. Everything else is
//! `pub(crate)` or less, so that the compiler finds unused code.

#![deny(unreachable_pub)]

mod addr;
mod app;
mod capture;
mod cli;
mod clock;
mod combinators;
mod config;
mod control;
mod credential;
mod doctor;
mod exec;
mod http1;
mod http2;
mod message;
mod multiplex;
mod policy;
mod printable;
mod proxy;
mod ring;
mod route;
mod shard;
mod sniff;
mod spares;
mod telemetry;
pub mod testing;
mod tls;
mod transport;
mod upstream;
mod workload;

pub use app::main;
pub use cli::command;
