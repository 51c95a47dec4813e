//! Parses the command line, wires the parts, exits.
fn main() {}
