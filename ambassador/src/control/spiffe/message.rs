//! Messages of the SPIFFE Workload API (workloadapi.proto), with the fields that
//! are used.
//!
//! Their bytes are parts of the frame that they came in, which is zeroed when the
//! last of them is dropped.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::digest;
use hyper::body::Bytes;
use prost::Message;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::credential::spiffe_id::{IdError, SpiffeId, TrustDomain};
use crate::printable::OneLine;
use crate::tls::certificate::{self, BadEncoding};
use crate::tls::trust::Trust;
use crate::tls::x509_context::{X509Context, X509ContextError};

/// SVIDs, bundles and lists of one message.
const FIELDS_MAX: usize = 2_000;
/// Certificates of an SVID or a bundle.
const CERTIFICATES_MAX: usize = 200;

/// Asks for all X.509-SVIDs.
#[derive(Clone, PartialEq, Message)]
pub(super) struct X509SvidRequest {}

/// All that is known, replacing what was known before.
#[derive(Clone, PartialEq, Message)]
pub(super) struct X509SvidResponse {
    /// The first one is the default.
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<X509Svid>,
    /// Revocation lists, in DER.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub crl: Vec<Bytes>,
    /// Certificates, in DER one behind the other, by the id of a trust domain.
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub federated_bundles: BTreeMap<String, Bytes>,
}

/// An SVID with its key.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct X509Svid {
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    /// Certificates in DER, the leaf first.
    #[prost(bytes = "bytes", tag = "2")]
    pub x509_svid: Bytes,
    /// PKCS#8.
    #[prost(bytes = "bytes", tag = "3")]
    pub x509_svid_key: Bytes,
    /// The authorities of its trust domain, in DER.
    #[prost(bytes = "bytes", tag = "4")]
    pub bundle: Bytes,
}

/// Why a message is discarded.
#[derive(Debug)]
pub(crate) enum MessageError {
    /// It is no message of this kind.
    Protobuf,
    /// It has more parts than [`FIELDS_MAX`].
    Fields,
    /// It has no SVID.
    NoSvid,
    /// It has more certificates in one place than [`CERTIFICATES_MAX`].
    Certificates,
    /// A list of certificates is none.
    Encoding(BadEncoding),
    /// What should be an id is none.
    Id {
        /// What it is.
        text: String,
        /// What is wrong.
        source: IdError,
    },
    /// The certificate is that of somebody else than the message says.
    OtherId {
        /// What the message says.
        named: SpiffeId,
        /// What the certificate says.
        certified: SpiffeId,
    },
    /// What it says is of no use.
    Identity(X509ContextError),
    /// A token is no JWT, or one of somebody else.
    Token,
}

impl MessageError {
    /// Whether it was in order, and has come to its end.
    pub(super) fn is_expiry(&self) -> bool {
        matches!(self, Self::Identity(X509ContextError::Expired(_)))
    }
}

impl X509SvidResponse {
    /// Reads one.
    pub(super) fn read(frame: Bytes) -> Result<Self, MessageError> {
        read(frame)
    }

    /// The default identity, checked. `now` is in seconds since 1970.
    pub(super) fn identity(&self, now: u64) -> Result<X509Context, MessageError> {
        let svid = self.svids.first().ok_or(MessageError::NoSvid)?;
        let named = id(&svid.spiffe_id)?;
        let chain = certificates(&svid.x509_svid)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&svid.x509_svid_key[..]));
        let identity = X509Context::new(chain, &key, self.trust()?, now);
        let identity = identity.map_err(MessageError::Identity)?;
        match identity.id == named {
            true => Ok(identity),
            false => Err(MessageError::OtherId {
                named,
                certified: identity.id,
            }),
        }
    }

    fn trust(&self) -> Result<Trust, MessageError> {
        let mut trust = Trust::default();
        let refused = |error| MessageError::Identity(X509ContextError::Trust(error));
        for (domain, bundle) in &self.federated_bundles {
            let bundle = certificates(bundle)?.into_iter();
            trust
                .add_bundle(trust_domain(domain)?, bundle)
                .map_err(refused)?;
        }
        // What comes with an SVID speaks for its domain before all else, and that
        // of the first one before the others.
        for svid in self.svids.iter().rev() {
            let domain = id(&svid.spiffe_id)?.trust_domain();
            let bundle = certificates(&svid.bundle)?.into_iter();
            trust.add_bundle(domain, bundle).map_err(refused)?;
        }
        let lists = self.crl.iter().map(|list| list.to_vec().into());
        trust.add_revocations(lists).map_err(refused)?;
        Ok(trust)
    }

    /// The same for the same content, in whatever order its bundles were sent.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut update = |part: &[u8]| {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        };
        for svid in &self.svids {
            update(svid.spiffe_id.as_bytes());
            update(&svid.x509_svid);
            update(&svid.bundle);
        }
        update(b"lists");
        self.crl.iter().for_each(|list| update(list));
        update(b"bundles");
        for (domain, bundle) in &self.federated_bundles {
            update(domain.as_bytes());
            update(bundle);
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(context.finish().as_ref());
        fingerprint
    }
}

/// Reads a message of no more parts than there may be.
pub(super) fn read<M: Message + Default>(frame: Bytes) -> Result<M, MessageError> {
    match field_count(&frame) {
        Some(..=FIELDS_MAX) => M::decode(frame).map_err(|_| MessageError::Protobuf),
        Some(_) => Err(MessageError::Fields),
        None => Err(MessageError::Protobuf),
    }
}

pub(super) fn id(text: &str) -> Result<SpiffeId, MessageError> {
    text.parse().map_err(|source| MessageError::Id {
        text: text.to_owned(),
        source,
    })
}

fn trust_domain(text: &str) -> Result<TrustDomain, MessageError> {
    let id = id(text)?;
    match id.path() {
        "" => Ok(id.trust_domain()),
        _ => Err(MessageError::Id {
            text: text.to_owned(),
            source: IdError::Segment,
        }),
    }
}

fn certificates(list: &[u8]) -> Result<Vec<CertificateDer<'static>>, MessageError> {
    let parts = certificate::split(list).map_err(MessageError::Encoding)?;
    match parts.len() {
        ..=CERTIFICATES_MAX => Ok(parts.into_iter().map(|it| it.to_vec().into()).collect()),
        _ => Err(MessageError::Certificates),
    }
}

/// How many fields a message has at its top, so that none is decoded that would
/// take many times its length. `None`: it is cut, or has fields of another kind
/// than those of the messages here.
fn field_count(mut message: &[u8]) -> Option<usize> {
    const LENGTH_DELIMITED: u64 = 2;
    let mut count = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let length = match key & 7 {
            LENGTH_DELIMITED => varint(&mut message)?,
            _ => return None,
        };
        message = message.get(usize::try_from(length).ok()?..)?;
        count += 1;
    }
    Some(count)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("X509Svid").field(&self.spiffe_id).finish()
    }
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protobuf => f.write_str("it is no message of the Workload API"),
            Self::Fields => write!(f, "it has more than {FIELDS_MAX} parts"),
            Self::NoSvid => f.write_str("it has no SVID"),
            Self::Certificates => {
                write!(
                    f,
                    "it has more than {CERTIFICATES_MAX} certificates in a list"
                )
            }
            Self::Encoding(error) => write!(f, "a part of a list of certificates {error}"),
            Self::Id { text, source } => write!(f, "the id \"{}\" {source}", OneLine(text)),
            Self::OtherId { named, certified } => {
                write!(f, "the SVID of {named} has the certificate of {certified}")
            }
            Self::Identity(error) => write!(f, "{error}"),
            Self::Token => f.write_str("its token is no JWT of that id"),
        }
    }
}

impl std::error::Error for MessageError {}
