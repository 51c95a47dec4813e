//! Interception of connect() in the kernel.

pub mod settings;
//! Taking the connections of a cgroup.

pub mod iptables;
