//! The immutable table from what a connection or request says to an upstream.
//!
//! A reload builds a new table and swaps it whole; nothing in one ever
//! changes. Looking up costs the same with one upstream as with a thousand and
//! allocates nothing, except for a request that names its upstream by an
//! authority in `X-Upstream-Host`.

mod names;
mod nets;
mod paths;
mod ports;
mod requests;
pub(crate) mod settings;
pub(crate) mod table;
pub(crate) mod tls;

pub(crate) use table::{AdoptKey, Claimed, Claims, HostHeader, MatchSource, Matched, Tunnelled};
pub use table::{RequestKey, Resolution, Table};
