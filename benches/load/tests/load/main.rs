//! The real program at both ends, and against servers that misbehave.

mod errors;
mod modes;
mod program;
mod tls;
mod upstream;
