use super::*;
use crate::credential::Secret;
use crate::credential::sigv4::{AwsKeys, Scope, SignedParts, Signer};

const PLAIN: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
const WITH_TRAILER: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";
/// 2013-05-24T00:00:00Z, when the published examples were signed.
const NOW: u64 = 1_369_353_600;
/// What a program signs with keys of no worth.
const OWN: &str = "00000000000000000000000000000000000000000000000000000000deadbeef";

/// The head of the published examples, and the signature of it.
fn head(content: &str) -> (String, ChunkSignatures) {
    let secret = b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_vec();
    let keys = AwsKeys {
        id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        secret: Secret::from(secret),
        token: None,
    };
    let scope = Scope {
        region: "us-east-1".to_owned(),
        service: "s3".to_owned(),
    };
    let mut fields = vec![
        ("content-encoding", "aws-chunked"),
        ("host", "s3.amazonaws.com"),
        ("x-amz-content-sha256", content),
        ("x-amz-decoded-content-length", "66560"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
    ];
    match content {
        PLAIN => fields.push(("content-length", "66824")),
        _ => fields.push(("x-amz-trailer", "x-amz-checksum-crc32c")),
    }
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    let parts = SignedParts {
        method: b"PUT",
        target: b"/examplebucket/chunkObject.txt",
        fields: &fields,
        content,
    };
    let signed = Signer::new(keys, scope).sign(parts, NOW);
    let (_, signature) = signed.authorization.split_once("Signature=").unwrap();
    (signature.to_owned(), signed.chunks)
}

/// A body of which each chunk is of this size, with these signatures.
fn body(sizes: &[usize], signatures: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for (size, signature) in sizes.iter().zip(signatures) {
        out.extend(format!("{size:x};chunk-signature={signature}\r\n").bytes());
        out.extend(std::iter::repeat_n(b'a', *size));
        if *size > 0 {
            out.extend(b"\r\n");
        }
    }
    out
}

/// What goes on of a body that comes in pieces of this many bytes.
fn passed(body: &mut SignedBody, bytes: &[u8], piece: usize) -> Result<Vec<u8>, BadMessage> {
    let mut out = Vec::new();
    for piece in bytes.chunks(piece) {
        out.append(&mut body.take(piece)?);
    }
    Ok(out)
}

fn of(content: &str, length: Length) -> SignedBody {
    let trailer = ChunkTrailer::said(content.as_bytes()).unwrap();
    SignedBody::new(length, trailer, head(content).1)
}

fn exact(bytes: &[u8]) -> Length {
    Length::Exact(bytes.len() as u64)
}

/// In chunks of HTTP/1, of this many bytes each.
fn framed(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in bytes.chunks(size) {
        out.extend(format!("{:x}\r\n", chunk.len()).bytes());
        out.extend(chunk);
        out.extend(b"\r\n");
    }
    out.extend(b"0\r\n\r\n");
    out
}

/// The examples of the Amazon S3 API Reference, however they come.
#[test]
fn chunks_are_signed_as_in_the_published_examples() {
    let sizes = [65_536, 1_024, 0];
    let (seed, _) = head(PLAIN);
    assert_eq!(
        seed,
        "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    );
    let signatures = [
        "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ];
    let end = |mut body: Vec<u8>| {
        body.extend(b"\r\n");
        body
    };
    let plain = end(body(&sizes, &[OWN; 3]));
    assert_eq!(plain.len(), 66_824);
    let plain = (PLAIN, plain, end(body(&sizes, &signatures)));

    let (seed, _) = head(WITH_TRAILER);
    assert_eq!(
        seed,
        "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
    );
    let signatures = [
        "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
        "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
        "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
    ];
    let trailer = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435";
    let field = "x-amz-checksum-crc32c:sOO8/Q==";
    let end = |mut body: Vec<u8>, signature: &str| {
        body.extend(format!("{field}\r\nx-amz-trailer-signature:{signature}\r\n\r\n").bytes());
        body
    };
    let with_trailer = (
        WITH_TRAILER,
        end(body(&sizes, &[OWN; 3]), OWN),
        end(body(&sizes, &signatures), trailer),
    );

    for (content, comes, goes) in [plain, with_trailer] {
        for piece in [1, 7, 1_460, 16_384, 100_000] {
            let mut body = of(content, exact(&comes));
            assert!(!body.is_done());
            assert!(
                passed(&mut body, &comes, piece) == Ok(goes.clone()),
                "{piece}"
            );
            assert!(body.is_done());
            // The chunks of HTTP/1 stay as they were, wherever they divide a signature.
            for size in [40, 4_000] {
                let mut body = of(content, Length::Unknown);
                let all = passed(&mut body, &framed(&comes, size), piece);
                assert!(all == Ok(framed(&goes, size)), "{piece} {size}");
                assert!(body.is_done());
            }
        }
    }
}

#[test]
fn a_chunk_is_held_until_all_of_it_has_come() {
    let bytes = body(&[1_000, 10, 0], &[OWN; 3]);
    let head = bytes.len() - 2 * 84 - 12;
    let mut body = of(PLAIN, Length::Exact(bytes.len() as u64 + 2));
    assert_eq!(body.take(&bytes[..900]), Ok(Vec::new()));
    assert_eq!(body.held_bytes(), 900);
    let goes = body.take(&bytes[900..head + 40]).unwrap();
    assert_eq!(goes.len(), head);
    assert_eq!(body.held_bytes(), 40);
    assert!(!body.is_done());
    assert_eq!(body.into_held(), &bytes[head..head + 40]);
}

/// What was sent in vain is signed again: it may hold signatures of ours.
#[test]
fn what_is_signed_is_signed_again() {
    let mut bytes = body(&[100, 0], &[OWN; 2]);
    bytes.extend(b"\r\n");
    let once = passed(&mut of(PLAIN, exact(&bytes)), &bytes, 50).unwrap();
    assert!(once != bytes);
    assert_eq!(passed(&mut of(PLAIN, exact(&once)), &once, 50), Ok(once));
}

#[test]
fn trailers_may_end_their_lines_as_they_like_and_are_signed_by_name() {
    let zero = format!("0;chunk-signature={OWN}\r\n");
    let signed = |fields: &str| {
        let own = format!("{zero}{fields}X-Amz-Trailer-Signature: {OWN}\r\n\r\n");
        let mut body = of(WITH_TRAILER, exact(own.as_bytes()));
        let goes = body.take(own.as_bytes()).unwrap();
        assert!(body.is_done() && goes.len() == own.len());
        goes[goes.len() - 68..].to_vec()
    };
    let plain = signed("x-amz-a:1\r\nx-amz-b:2\r\n");
    assert_eq!(signed("x-amz-a:1\n\r\nx-amz-b:2\n\r\n"), plain);
    assert_eq!(signed("X-Amz-B: 2\r\nX-Amz-A: 1 \r\n"), plain);
    assert!(signed("x-amz-a:2\r\nx-amz-b:2\r\n") != plain);
}

#[test]
fn what_is_in_no_such_chunks_is_refused() {
    let long = "0".repeat(300);
    let trailers = format!("x-a:{}\r\n", "1".repeat(200)).repeat(21);
    for (content, bytes, expected) in [
        (PLAIN, "hello".to_owned() + &long, BadMessage::SignedChunk),
        (PLAIN, "5\r\nhello\r\n".to_owned(), BadMessage::SignedChunk),
        (
            PLAIN,
            format!(";chunk-signature={OWN}\r\n"),
            BadMessage::SignedChunk,
        ),
        (
            PLAIN,
            format!("+5;chunk-signature={OWN}\r\n"),
            BadMessage::SignedChunk,
        ),
        (
            PLAIN,
            format!("5;chunk-signature={OWN}\n"),
            BadMessage::SignedChunk,
        ),
        (
            PLAIN,
            format!("5;chunk-signature={OWN}0\r\n"),
            BadMessage::SignedChunk,
        ),
        (
            PLAIN,
            "5;chunk-signature=0\r\n".to_owned(),
            BadMessage::SignedChunk,
        ),
        (
            PLAIN,
            format!("5;signature={OWN}\r\n"),
            BadMessage::SignedChunk,
        ),
        (
            PLAIN,
            format!("5;chunk-signature={OWN}\r\nhello5;"),
            BadMessage::SignedChunk,
        ),
        (
            PLAIN,
            format!("0;chunk-signature={OWN}\r\nx\r\n"),
            BadMessage::SignedChunk,
        ),
        (
            PLAIN,
            format!("0;chunk-signature={OWN}\r\n\r\nx\n"),
            BadMessage::SignedChunk,
        ),
        (
            PLAIN,
            format!("100001;chunk-signature={OWN}\r\n"),
            BadMessage::SignedChunkTooLarge,
        ),
        (
            PLAIN,
            format!("{};chunk-signature={OWN}\r\n", "f".repeat(17)),
            BadMessage::SignedChunkTooLarge,
        ),
        (
            WITH_TRAILER,
            format!("0;chunk-signature={OWN}\r\nx-a\r\n"),
            BadMessage::SignedChunk,
        ),
        (
            WITH_TRAILER,
            format!("0;chunk-signature={OWN}\r\nx-amz-trailer-signature:0\r\n"),
            BadMessage::SignedChunk,
        ),
        (
            WITH_TRAILER,
            format!("0;chunk-signature={OWN}\r\n{trailers}"),
            BadMessage::TrailerTooLarge,
        ),
    ] {
        for piece in [1, 10_000] {
            let mut body = of(content, Length::Exact(10_000));
            let read = passed(&mut body, bytes.as_bytes(), piece);
            assert!(
                read == Err(expected) || bytes.ends_with("hello5;") && !body.is_done(),
                "{bytes}: {read:?}"
            );
        }
    }
    // The largest one.
    let mut largest = of(PLAIN, Length::Exact(10_000));
    let line = format!("100000;chunk-signature={OWN}\r\n");
    assert_eq!(largest.take(line.as_bytes()), Ok(Vec::new()));
    // And what is not whole.
    for bytes in [
        format!("0;chunk-signature={OWN}"),
        format!("5;chunk-signature={OWN}\r\nhell"),
    ] {
        let mut body = of(PLAIN, exact(bytes.as_bytes()));
        assert!(body.take(bytes.as_bytes()).is_ok() && !body.is_done());
    }
    let unsigned = format!("0;chunk-signature={OWN}\r\nx-a:1\r\n\r\n");
    let mut body = of(WITH_TRAILER, exact(unsigned.as_bytes()));
    assert!(body.take(unsigned.as_bytes()).is_ok() && !body.is_done());
}
