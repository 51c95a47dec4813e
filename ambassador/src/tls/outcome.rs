//! What errors and alerts of a handshake mean, in one word each.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible, PeerMisbehaved};

use super::svid_verifier::PeerError;
use crate::telemetry::TlsOutcome;

/// How a handshake with this error has ended.
pub(super) fn outcome_of(error: &Error) -> TlsOutcome {
    match error {
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::NoCertificatesPresented => TlsOutcome::NoCertificate,
        Error::NoApplicationProtocol
        | Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol) => {
            TlsOutcome::NoProtocol
        }
        Error::PeerIncompatible(
            PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::SupportedVersionsExtensionRequired
            // Those of TLS 1.1 and before must not send it (RFC 5246 section 7.4.1.4.1).
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => TlsOutcome::NoVersion,
        Error::PeerIncompatible(_) => TlsOutcome::NothingInCommon,
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::InvalidMessage(_) => TlsOutcome::Malformed,
        _ => TlsOutcome::Malformed,
    }
}

fn of_certificate(error: &CertificateError) -> TlsOutcome {
    use CertificateError::*;
    match error {
        Expired | ExpiredContext { .. } => TlsOutcome::Expired,
        NotValidYet | NotValidYetContext { .. } => TlsOutcome::NotYetValid,
        NotValidForName | NotValidForNameContext { .. } => TlsOutcome::WrongName,
        UnknownIssuer => TlsOutcome::UnknownCa,
        Revoked => TlsOutcome::Revoked,
        Other(error) => match error.0.downcast_ref() {
            Some(PeerError::Id { .. }) => TlsOutcome::WrongName,
            Some(PeerError::NoBundle(_)) => TlsOutcome::UnknownCa,
            Some(PeerError::Unlisted(_)) => TlsOutcome::NotAllowed,
            Some(PeerError::Svid(_)) | None => TlsOutcome::BadCertificate,
        },
        UnknownRevocationStatus | ExpiredRevocationList | ExpiredRevocationListContext { .. } => {
            TlsOutcome::UnknownRevocation
        }
        _ => TlsOutcome::BadCertificate,
    }
}

/// What an alert of the peer says about what it was shown, once version and ciphers are
/// agreed upon (RFC 8446 section 6.2); `None`: nothing. With TLS 1.2 some say no more than
/// that the handshake has failed. With TLS 1.3 a client learns only behind its handshake
/// that the server does not accept its certificate.
pub(super) fn refusal(alert: AlertDescription) -> Option<TlsOutcome> {
    use AlertDescription as Alert;
    match alert {
        Alert::AccessDenied
        | Alert::BadCertificate
        | Alert::BadCertificateHashValue
        | Alert::BadCertificateStatusResponse
        | Alert::CertificateExpired
        | Alert::CertificateRequired
        | Alert::CertificateRevoked
        | Alert::CertificateUnknown
        | Alert::CertificateUnobtainable
        | Alert::DecryptError
        | Alert::HandshakeFailure
        | Alert::InsufficientSecurity
        | Alert::NoCertificate
        | Alert::UnknownCA
        | Alert::UnrecognisedName
        | Alert::UnsupportedCertificate => Some(TlsOutcome::Refused),
        Alert::NoApplicationProtocol => Some(TlsOutcome::NoProtocol),
        _ => None,
    }
}

fn of_alert(alert: AlertDescription) -> TlsOutcome {
    use AlertDescription as Alert;
    match alert {
        Alert::NoApplicationProtocol => TlsOutcome::NoProtocol,
        Alert::ProtocolVersion => TlsOutcome::NoVersion,
        Alert::HandshakeFailure | Alert::InsufficientSecurity => TlsOutcome::NothingInCommon,
        Alert::CloseNotify => TlsOutcome::Closed,
        _ => TlsOutcome::Refused,
    }
}
