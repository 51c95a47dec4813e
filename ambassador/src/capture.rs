//! Interception of connect() in the kernel.

pub mod settings;
