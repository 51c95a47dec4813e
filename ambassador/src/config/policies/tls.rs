//! `tls`: how connections to an upstream are encrypted.

use crate::config::read::Place;
use crate::config::setting::{Layer, settings};
use crate::config::values::{CaFile, CertFile, FilePath, OrOff, ServerName, Verify, choice};
use crate::route::tls::{self, Ca, CertificateSource};

settings! {
    /// How connections to an upstream are encrypted.
    Tls for tls::Tls as tls, checked by has_both {
        /// Who may have signed the certificate of the server: `system`, a file in PEM,
        /// or `identity`: the authorities that came with `identity` (with
        /// `verify: spiffe://...` those of the server's trust domain, else those of the
        /// own one), and the certificates that they have revoked. Where `cert` is
        /// `identity`, so is this one, unless it is said. A file that is named by a
        /// relative path begins in the directory of the configuration file.
        ca: CaFile = tls.ca,
        /// A file with the client certificate and those between it and a root, in PEM;
        /// or `identity`. A changed one is taken within 2 s, for new connections. Old
        /// ones are closed before their certificate ends.
        cert: CertFile = tls.cert,
        /// The file with its key, in PEM.
        key: FilePath = tls.key,
        /// The name that is asked for, and that the certificate must have: `auto`, a
        /// name or an address. `auto` is the name in the authority of the request; for
        /// connections without requests the first name in `hosts`, else that of `dns`,
        /// else the address of the endpoint.
        sni: ServerName = tls.sni,
        /// What must be right with the certificate of the server. `full`: who signed it,
        /// and its name. `ca`: who signed it; its name may be any. `spiffe://td/path`:
        /// who signed it, and that it is an X.509-SVID of exactly this SPIFFE ID, not of
        /// one below it; `spiffe://td/path/*`: of one below it; `spiffe://td`: of any
        /// workload in the trust domain. `off`:
        /// nothing, so whoever can take the place of the server is believed; each start
        /// warns of it.
        verify: Verify = tls.verify,
        /// The application protocols (ALPN) that are offered.
        alpn: Alpn = tls.alpn,
        /// The oldest version that is spoken.
        min_version: MinVersion = tls.min_version,
        /// A file with lists of revoked certificates, in PEM. With it, a certificate is
        /// refused whose issuer has no valid list there.
        crl: OrOff<FilePath> = tls.crl,
    }
}

choice! {
    /// The application protocols that are offered.
    Alpn: tls::Alpn {
        /// Those of `protocol`.
        Auto = "auto" => tls::Alpn::Auto,
        /// None.
        Off = "off" => tls::Alpn::Off,
    }
}

choice! {
    /// The oldest version that is spoken.
    MinVersion: tls::MinVersion {
        /// TLS 1.2.
        Tls12 = "1.2" => tls::MinVersion::Tls12,
        /// TLS 1.3.
        Tls13 = "1.3" => tls::MinVersion::Tls13,
    }
}

/// A certificate is nothing without its key. That of the identity has its own, and
/// comes with whom to believe.
fn has_both(written: &Tls, place: &Place, tls: &mut tls::Tls, layer: &mut Layer<'_>) {
    if tls.cert == Some(CertificateSource::Identity) {
        if let Some(key) = written.key.as_ref() {
            layer
                .findings
                .mistake_at(key, "must not be there with cert: identity");
        }
        tls.key = None;
        if written.ca.as_ref().is_none() && tls.ca == Ca::System {
            tls.ca = Ca::Identity;
        }
    } else if tls.cert.is_some() != tls.key.is_some() {
        layer.mistake_unless_inside(place, "must have cert and key, or neither");
    }
}
