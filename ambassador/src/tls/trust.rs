//! Whose certificates are believed: the authorities of each trust domain, and what
//! they have revoked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use webpki::{CertRevocationList, OwnedCertRevocationList};

use crate::credential::spiffe_id::TrustDomain;

/// Bundles by trust domain. A peer is verified with that of its own domain and no
/// other, so a federated domain vouches for nobody outside of it.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    bundles: BTreeMap<TrustDomain, Arc<RootCertStore>>,
    revocations: Vec<CertRevocationList<'static>>,
    revocation_lists: Vec<CertificateRevocationListDer<'static>>,
}

/// Why a bundle or a list of revoked certificates is refused.
#[derive(Debug)]
pub(crate) enum TrustError {
    /// A certificate of a bundle.
    Authority {
        /// Whose bundle it is.
        domain: TrustDomain,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// A revocation list, by its place among them.
    RevocationList {
        /// The first is 0.
        index: usize,
        /// What is wrong with it.
        source: webpki::Error,
    },
}

impl Trust {
    /// Adds the authorities of a trust domain. Without any, none of its workloads
    /// is believed.
    pub(crate) fn add_bundle(
        &mut self,
        domain: TrustDomain,
        authorities: impl Iterator<Item = CertificateDer<'static>>,
    ) -> Result<(), TrustError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            if let Err(source) = roots.add(authority) {
                return Err(TrustError::Authority { domain, source });
            }
        }
        self.bundles.insert(domain, Arc::new(roots));
        Ok(())
    }

    /// Adds lists of revoked certificates. One counts for the certificates of its
    /// issuer; those of issuers without a list are not revoked.
    pub(crate) fn add_revocations(
        &mut self,
        lists: impl Iterator<Item = CertificateRevocationListDer<'static>>,
    ) -> Result<(), TrustError> {
        for (index, list) in lists.enumerate() {
            let read = OwnedCertRevocationList::from_der(&list)
                .map_err(|source| TrustError::RevocationList { index, source })?;
            self.revocations.push(read.into());
            self.revocation_lists.push(list);
        }
        Ok(())
    }

    /// The authorities of a trust domain, where there are any.
    pub(crate) fn bundle(&self, domain: &TrustDomain) -> Option<&Arc<RootCertStore>> {
        let bundle = self.bundles.get(domain);
        bundle.filter(|bundle| !bundle.is_empty())
    }

    /// The same lists as [`Trust::revocations`], in DER.
    pub(crate) fn revocation_lists(&self) -> &[CertificateRevocationListDer<'static>] {
        &self.revocation_lists
    }

    /// What the authorities have revoked.
    pub(crate) fn revocations(&self) -> &[CertRevocationList<'static>] {
        &self.revocations
    }
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority { domain, source } => {
                write!(
                    f,
                    "a certificate in the bundle of {domain} is bad: {source}"
                )
            }
            Self::RevocationList { index, source } => {
                write!(f, "revocation list {} is bad: {source}", index + 1)
            }
        }
    }
}

impl std::error::Error for TrustError {}
