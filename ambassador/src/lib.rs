//! The ambassador as a library; `main.rs` parses the command line and wires.

pub mod addr;
pub mod capture;
pub mod clock;
pub mod config;
pub mod control;
pub mod doctor;
pub mod exec;
pub mod policy;
pub mod route;
pub mod telemetry;
pub mod workload;
