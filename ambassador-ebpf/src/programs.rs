//! The BPF programs, one file each.
fn main() {}
