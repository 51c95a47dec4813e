//! What happens to an accepted connection: sniffed, routed, forwarded.

pub mod accepted;
pub mod adopted;
pub mod client;
pub mod context;
pub mod drain;
pub mod exchange;
pub mod forward;
pub mod generation;
pub mod http1;
pub mod tunnel;
pub mod way;
