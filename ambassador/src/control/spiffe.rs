//! Identities from a SPIFFE Workload API, by two calls of gRPC.

mod backoff;
mod endpoint;
mod files;
mod jwt_svid;
mod keeper;
mod message;
#[cfg(test)]
mod test_agent;
mod workload_api;

pub(crate) use files::IdentityFiles;
pub use files::identity_in;
pub(crate) use jwt_svid::fetch_jwt_svid;
pub(crate) use keeper::{IdentitySource, keep};
pub(crate) use workload_api::{CallError, Publish};

use hyper::body::Bytes;
use tokio::time::Duration;

use super::grpc::{self, Question};

/// A call of the Workload API, of a method as `/SpiffeWorkloadAPI/FetchX509SVID`.
fn question(method: &str, piece_within: Duration) -> Question<'static> {
    Question {
        uri: format!("http://localhost{method}"),
        // Against requests that somebody has a server make (SPIFFE Workload
        // Endpoint, section 3).
        fields: &[("workload.spiffe.io", "true")],
        message_bytes_max: grpc::MESSAGE_BYTES_MAX,
        piece_within,
    }
}

/// What an agent says in an answer whose bytes come in pieces of so many: of each message
/// the id of the workload and its fingerprint, or why it is discarded. The last one is
/// why the answer ends early. `now` is in seconds since 1970.
pub fn identities(answer: &[u8], piece_bytes: usize, now: u64) -> Vec<Result<String, String>> {
    let mut told = Vec::new();
    let mut frames = grpc::Frames::of(grpc::MESSAGE_BYTES_MAX);
    for piece in answer.chunks(piece_bytes.max(1)) {
        let mut piece = Bytes::copy_from_slice(piece);
        loop {
            match frames.take(&mut piece) {
                Ok(Some(message)) => told.push(identity(message, now)),
                Ok(None) => break,
                Err(error) => {
                    told.push(Err(error.to_string()));
                    return told;
                }
            }
        }
    }
    told
}

fn identity(message: Bytes, now: u64) -> Result<String, String> {
    let token = jwt_svid::SvidResponse::read(message.clone()).and_then(|it| it.token());
    if let Ok(token) = token {
        return Ok(format!("a token until {}", token.expires));
    }
    let response = message::X509SvidResponse::read(message);
    let told = response.and_then(|response| {
        let id = response.identity(now)?.id;
        Ok(format!("{id} {:x?}", response.fingerprint()))
    });
    told.map_err(|error| error.to_string())
}
