//! Why a command could not do its work.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;

/// What made a command give up.
#[derive(Debug)]
pub enum Failure {
    /// A system call that nothing can be done without.
    System {
        /// What was attempted.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Not all connections could be opened before the load.
    Unreachable {
        /// Where to.
        to: SocketAddr,
        /// How many were open when that was given up.
        open: usize,
        /// How many were wanted.
        wanted: usize,
        /// What the next one met.
        source: io::Error,
    },
    /// Another load generator could not be run, or said something unexpected.
    Other {
        /// Which one.
        program: String,
        /// What it did or said.
        said: String,
    },
}

impl Failure {
    /// For `map_err`: the system call behind `doing` failed.
    pub fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Failure {
        move |source| Failure::System {
            doing,
            source: source.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::System { doing, source } => write!(f, "{doing}: {source}"),
            Failure::Unreachable {
                to,
                open,
                wanted,
                source,
            } => {
                write!(
                    f,
                    "{to}: {open} of {wanted} connections opened, then: {source}"
                )
            }
            Failure::Other { program, said } => write!(f, "{program}: {said}"),
        }
    }
}

impl Error for Failure {}
