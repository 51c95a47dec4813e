//! A body in signed chunks: no input panics, a cut changes nothing, and nothing is
//! added, lost or moved but digits of signatures.

#![no_main]

use ambassador::testing::credential::Secret;
use ambassador::testing::credential::signed_body::{ChunkTrailer, SignedBody};
use ambassador::testing::credential::sigv4::{AwsKeys, Scope, SignedParts, Signer};
use ambassador::testing::message::Length;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for trailer in [ChunkTrailer::None, ChunkTrailer::Signed] {
        let exact = Length::Exact(bytes.len() as u64);
        for length in [exact, Length::Unknown] {
            let Some(goes) = read(length, trailer, bytes, bytes.len().max(1)) else {
                assert_eq!(read(length, trailer, bytes, 1), None);
                continue;
            };
            assert_eq!(read(length, trailer, bytes, 1).as_deref(), Some(&goes[..]));
            let pairs = bytes.iter().zip(&goes);
            let mut changed = pairs.filter(|(came, goes)| came != goes);
            assert!(
                changed
                    .all(|(came, goes)| { came.is_ascii_hexdigit() && goes.is_ascii_hexdigit() })
            );
            // What is signed already is signed alike.
            assert_eq!(read(length, trailer, &goes, 7), Some(goes));
        }
    }
});

/// A body that comes in pieces of this many bytes, as it goes on, and behind that what is
/// held of it; `None`: it is refused. How much is held of one that is cut goes by the
/// pieces.
fn read(length: Length, trailer: ChunkTrailer, bytes: &[u8], piece: usize) -> Option<Vec<u8>> {
    let mut body = SignedBody::new(length, trailer, signatures());
    let (mut came, mut goes) = (0, Vec::new());
    for piece in bytes.chunks(piece) {
        goes.append(&mut body.take(piece).ok()?);
        came += piece.len();
        assert_eq!(goes.len() + body.held_bytes(), came);
    }
    goes.append(&mut body.into_held());
    Some(goes)
}

fn signatures() -> ambassador::testing::credential::sigv4::ChunkSignatures {
    let keys = AwsKeys {
        id: "AKID".to_owned(),
        secret: Secret::from(b"s3cr3t".to_vec()),
        token: None,
    };
    let scope = Scope {
        region: "eu-west-1".to_owned(),
        service: "s3".to_owned(),
    };
    let parts = SignedParts {
        method: b"PUT",
        target: b"/",
        fields: &[],
        content: "",
    };
    Signer::new(keys, scope).sign(parts, 0).chunks
}
