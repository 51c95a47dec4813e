//! The ambassador as a library; `main.rs` parses the command line and wires.

pub mod addr;
pub mod app;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod doctor;
pub mod exec;
pub mod http;
pub mod policy;
pub mod proxy;
pub mod ring;
pub mod route;
pub mod shard;
pub mod telemetry;
pub mod together;
pub mod upstream;
pub mod workload;
