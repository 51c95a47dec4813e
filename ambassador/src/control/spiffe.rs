//! Identities from a SPIFFE Workload API: a small client of gRPC over h2, of which
//! one server-streaming call is all that is needed.

mod backoff;
mod endpoint;
mod files;
mod grpc;
mod jwt_svid;
mod keeper;
mod message;
#[cfg(test)]
mod test_agent;
mod workload_api;

pub(crate) use files::IdentityFiles;
pub(crate) use jwt_svid::fetch_jwt_svid;
pub(crate) use keeper::{IdentitySource, keep};
pub(crate) use workload_api::{CallError, Publish};
