//! The immutable table from what a connection or request says to an upstream.

pub mod settings;
