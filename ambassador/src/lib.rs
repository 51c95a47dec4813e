//! The ambassador as a library; `main.rs` parses the command line and wires.

pub mod addr;
pub mod capture;
pub mod clock;
pub mod policy;
pub mod route;
