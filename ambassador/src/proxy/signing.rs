//! Signs a try with the keys of AWS: its head as it is written, and what is known of
//! its body.

use std::borrow::Cow;

use crate::credential::Credential;
use crate::credential::signed_body::{ChunkTrailer, SignedBody};
use crate::credential::sigv4::{
    self, CONTENT_HASH_FIELD, ChunkSignatures, DATE_FIELD, SignedParts, Signer, TOKEN_FIELD,
    UNSIGNED,
};
use crate::message::fields::Kind;
use crate::message::{BadMessage, RequestHead, WrittenHead};
use crate::proxy::body::BodyForm;
use crate::ring::{Chunk, Gather};
use crate::route::settings::HeaderRules;

/// A body in pieces that are not signed, with what the program has hashed behind it.
const UNSIGNED_PIECES: &[u8] = b"STREAMING-UNSIGNED-PAYLOAD-TRAILER";

/// What a try is signed with.
pub(crate) struct Signing<'a> {
    signer: &'a Signer,
    /// The hash of the body, or a word in its place.
    content: Cow<'a, str>,
    is_content_sent: bool,
}

/// What shows the signature of a try.
pub(crate) struct SignatureLines {
    /// Fields of its head, to be sent behind those of it.
    pub fields: Vec<(&'static str, Vec<u8>)>,
    /// What signs the chunks of its body, where it has such.
    pub chunks: ChunkSignatures,
}

/// A head with its signature.
pub(crate) struct SignedHead {
    /// As it goes.
    pub head: Chunk,
    /// What signs the chunks of its body, where it has such.
    pub chunks: ChunkSignatures,
}

/// What is known of the body of a try.
#[derive(Clone, Copy)]
pub(crate) enum KnownBody<'a> {
    /// All of it.
    Whole(&'a Gather),
    /// More is to come.
    Part,
}

/// What a signature says of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    /// What the program says of it.
    Said(&'a [u8]),
    /// Its hash.
    Hash,
    /// That it is not signed.
    Unsigned,
}

/// What a signature says of a body. `None`: the service wants a hash, and nobody knows
/// it yet, or the body holds signatures that cannot be replaced.
pub(crate) fn content<'a>(
    signer: &Signer,
    request: &RequestHead,
    head: &'a [u8],
    body: KnownBody<'_>,
) -> Option<Content<'a>> {
    let is_chunked = request.fields().has(Kind::TransferEncoding);
    match (said_of_body(request, head), body) {
        (BodyHint::OtherSignatures, _) => None,
        (BodyHint::Usable(said), _) => Some(Content::Said(said)),
        (BodyHint::Nothing, KnownBody::Whole(_)) if !is_chunked => Some(Content::Hash),
        (BodyHint::Nothing, _) => signer.scope().is_s3().then_some(Content::Unsigned),
    }
}

impl<'a> Signing<'a> {
    /// Where [`content`] says what of the body is signed; else the service refuses it.
    pub(crate) fn of(
        signer: &'a Signer,
        request: &RequestHead,
        head: &'a [u8],
        body: KnownBody<'_>,
    ) -> Self {
        let known = content(signer, request, head, body);
        let content = match (known, body) {
            (Some(Content::Said(said)), _) => String::from_utf8_lossy(said),
            (Some(Content::Hash), KnownBody::Whole(body)) => {
                let pieces: Vec<&[u8]> = body.chunks().map(|chunk| &**chunk).collect();
                sigv4::hash_of(&pieces).into()
            }
            _ => UNSIGNED.into(),
        };
        let is_said = matches!(known, Some(Content::Said(_)));
        Self {
            signer,
            content,
            is_content_sent: signer.scope().is_s3() || is_said,
        }
    }

    /// Signs a head.
    pub(crate) fn lines(&self, head: &WrittenHead<'_>, now: u64) -> SignatureLines {
        let content = [(CONTENT_HASH_FIELD.as_bytes(), self.content.as_bytes())];
        let sent = head
            .fields
            .iter()
            .copied()
            .filter(|(name, _)| is_signed(name));
        let signed: Vec<_> = match self.is_content_sent {
            true => sent.chain(content).collect(),
            false => sent.collect(),
        };
        let signature = self.signer.sign(
            SignedParts {
                method: head.method,
                target: head.target,
                fields: &signed,
                content: &self.content,
            },
            now,
        );
        let mut fields = vec![(DATE_FIELD, signature.date.into_bytes())];
        if self.is_content_sent {
            fields.push((CONTENT_HASH_FIELD, self.content.as_bytes().to_vec()));
        }
        if let Some(token) = self.signer.token() {
            fields.push((TOKEN_FIELD, token.expose().to_vec()));
        }
        fields.push(("Authorization", signature.authorization.into_bytes()));
        SignatureLines {
            fields,
            chunks: signature.chunks,
        }
    }

    /// The body behind a head that was signed so, where it is in signed chunks; it comes
    /// in this form.
    pub(crate) fn body(
        &self,
        request: &RequestHead,
        form: BodyForm,
        chunks: ChunkSignatures,
    ) -> Option<SignedBody> {
        let trailer = ChunkTrailer::said(self.content.as_bytes())?;
        Some(match form {
            BodyForm::Http1 => SignedBody::new(request.length(), trailer, chunks),
            BodyForm::Content(_) => SignedBody::of_content(trailer, chunks),
        })
    }
}

/// What goes of a body in signed chunks, of which `came` has come.
///
/// # Errors
/// It is not in such chunks.
pub(crate) fn replaced(body: &mut SignedBody, came: &Gather) -> Result<Gather, BadMessage> {
    let mut goes = Vec::new();
    for chunk in came.chunks() {
        goes.append(&mut body.take(chunk)?);
    }
    Ok(Gather::from(Chunk::from(goes)))
}

/// Whether a signature can be made before more of the body is known.
pub(crate) fn waits_for_body(signer: &Signer, request: &RequestHead, head: &[u8]) -> bool {
    !signer.scope().is_s3() && matches!(said_of_body(request, head), BodyHint::Nothing)
}

/// The rules of an upstream, and that the program's own signature does not go on.
/// `None`: nothing is signed.
#[inline]
pub(crate) fn rules_of(
    credential: Option<&Credential>,
    rules: &HeaderRules,
) -> Option<HeaderRules> {
    match credential? {
        Credential::Signatures(_) => Some(without_own(rules)),
        Credential::Header { .. } | Credential::Substitute(_) => None,
    }
}

fn without_own(rules: &HeaderRules) -> HeaderRules {
    let mut all = rules.clone();
    all.set.retain(|(name, _)| !is_own(name.as_bytes()));
    all.remove.extend(OWN_FIELDS.map(str::to_owned));
    all
}

const OWN_FIELDS: [&str; 4] = ["authorization", DATE_FIELD, TOKEN_FIELD, CONTENT_HASH_FIELD];

/// Whether nobody but the proxy sends a field of this name.
pub(crate) fn is_own(name: &[u8]) -> bool {
    let mut own = OWN_FIELDS.iter();
    own.any(|own| name.eq_ignore_ascii_case(own.as_bytes()))
}

/// Fields that others on the way may change are left out.
fn is_signed(name: &[u8]) -> bool {
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    let starts = name
        .get(..6)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"x-amz-"));
    starts || is("host") || is("content-type") || is("content-md5")
}

/// What the program itself says of the body.
enum BodyHint<'a> {
    /// A hash, or that there is none, or what its chunks are: that is right whoever
    /// signs.
    Usable(&'a [u8]),
    /// It holds signatures of another kind, which are worth nothing here.
    OtherSignatures,
    Nothing,
}

fn said_of_body<'a>(request: &RequestHead, head: &'a [u8]) -> BodyHint<'a> {
    let is_named = |name: &[u8]| name.eq_ignore_ascii_case(CONTENT_HASH_FIELD.as_bytes());
    let mut fields = request.fields().iter();
    let Some(said) = fields.find(|field| is_named(field.name(head))) else {
        return BodyHint::Nothing;
    };
    let said = said.value(head);
    let is_hash = said.len() == 64 && said.iter().all(u8::is_ascii_hexdigit);
    let is_word = said == UNSIGNED.as_bytes()
        || said == UNSIGNED_PIECES
        || ChunkTrailer::said(said).is_some();
    match said {
        _ if is_hash || is_word => BodyHint::Usable(said),
        _ if said.starts_with(b"STREAMING-") => BodyHint::OtherSignatures,
        _ => BodyHint::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Secret;
    use crate::credential::sigv4::{AwsKeys, Scope};
    use crate::http1;
    use crate::message::Limits;
    use crate::ring::Chunk;

    const CHUNKS: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";

    fn signer(service: &str) -> Signer {
        let keys = AwsKeys {
            id: "AKID".to_owned(),
            secret: Secret::from(b"s3cr3t".to_vec()),
            token: None,
        };
        let scope = Scope {
            region: "eu-west-1".to_owned(),
            service: service.to_owned(),
        };
        Signer::new(keys, scope)
    }

    /// What is said of the body in a signature.
    fn said(service: &str, fields: &str, body: KnownBody<'_>) -> Option<String> {
        let head = format!("PUT / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut request = RequestHead::default();
        let parsed = http1::parse_request(&mut request, head.as_bytes(), &Limits::default());
        assert!(matches!(parsed, Ok(Some(_))), "{head}");
        let signer = signer(service);
        content(&signer, &request, head.as_bytes(), body)?;
        let signing = Signing::of(&signer, &request, head.as_bytes(), body);
        Some(signing.content.into_owned())
    }

    #[test]
    fn a_body_is_hashed_where_all_of_it_is_there() {
        let hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let mut body = Gather::default();
        for part in ["hel", "lo"] {
            body.push(Chunk::written(3, |out| {
                out.extend_from_slice(part.as_bytes())
            }));
        }
        let sized = "Content-Length: 5\r\n";
        let own = format!("{sized}X-Amz-Content-Sha256: {hello}\r\n");
        let chunked = "Transfer-Encoding: chunked\r\n";
        let signed = format!("{sized}x-amz-content-sha256: {CHUNKS}\r\n");
        let other = signed.replace("HMAC", "ECDSA-P256");
        let odd = format!("{sized}x-amz-content-sha256: hello\r\n");
        for (service, fields, body, expected) in [
            ("s3", sized, KnownBody::Whole(&body), Some(hello)),
            ("sqs", sized, KnownBody::Whole(&body), Some(hello)),
            ("s3", sized, KnownBody::Part, Some(UNSIGNED)),
            ("sqs", sized, KnownBody::Part, None),
            ("s3", &*own, KnownBody::Part, Some(hello)),
            ("sqs", &*own, KnownBody::Part, Some(hello)),
            ("s3", chunked, KnownBody::Whole(&body), Some(UNSIGNED)),
            ("sqs", chunked, KnownBody::Whole(&body), None),
            ("s3", &*signed, KnownBody::Part, Some(CHUNKS)),
            ("sqs", &*signed, KnownBody::Whole(&body), Some(CHUNKS)),
            ("s3", &*other, KnownBody::Part, None),
            ("s3", &*odd, KnownBody::Part, Some(UNSIGNED)),
        ] {
            let said = said(service, fields, body);
            assert_eq!(said.as_deref(), expected, "{service} {fields}");
        }
    }

    #[test]
    fn what_is_the_programs_own_does_not_go_on() {
        let own = HeaderRules {
            set: vec![
                ("x-team".to_owned(), "shop".to_owned()),
                ("X-Amz-Date".to_owned(), "never".to_owned()),
            ],
            remove: vec!["x-debug".to_owned()],
        };
        let rules = without_own(&own);
        assert_eq!(rules.set, [("x-team".to_owned(), "shop".to_owned())]);
        for name in [
            "x-debug",
            "authorization",
            "x-amz-date",
            "X-AMZ-SECURITY-TOKEN",
        ] {
            assert!(rules.names(name), "{name}");
        }
    }
}
