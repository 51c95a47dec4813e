//! Interception of connect() in the kernel.

pub mod iptables;
pub mod settings;
