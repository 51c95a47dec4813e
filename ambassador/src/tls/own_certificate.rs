//! The certificate that is shown to peers, and its key, as they stand in files.

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use super::files::{FileError, certificates, private_key, wrong};

/// Reads a certificate, those that have signed it behind it, and its key.
///
/// # Errors
/// Where a file has no such thing in it, or they do not go together.
pub(super) fn read(
    cert: &[u8],
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<CertifiedKey, FileError> {
    let chain = certificates("cert", cert)?;
    let key = provider.key_provider.load_private_key(private_key(key)?);
    let key = key.map_err(|_| {
        wrong(
            "key",
            "is of no kind that TLS takes here: RSA of 2,048 to 8,192 bits, ECDSA on P-256, \
             P-384 or P-521, Ed25519",
        )
    })?;
    let own = CertifiedKey::new(chain, key);
    match own.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(own),
        Err(Error::InconsistentKeys(_)) => Err(wrong(
            "cert",
            "does not begin with the certificate of the key; those that have signed it stand \
             behind it",
        )),
        Err(error) => Err(wrong("cert", error)),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};

    use super::super::client::provider;
    use super::*;

    fn pair() -> (String, String) {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let parameters = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn what_is_wrong_is_said_of_the_file_that_it_is_wrong_with() {
        let ((cert, key), (other, other_key)) = (pair(), pair());
        let read = |cert: &str, key: &str| {
            let read = read(cert.as_bytes(), key.as_bytes(), &provider());
            read.map(|own| own.cert.len())
                .map_err(|error| (error.key, error.what))
        };
        assert_eq!(read(&format!("{cert}{other}"), &key), Ok(2));
        let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
        let weak = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let cut = &key[..key.len() - 30];
        for (cert, key, at, word) in [
            (&*cert, &*other_key, "cert", "does not begin"),
            (&*format!("{other}{cert}"), &*key, "cert", "does not begin"),
            (&*key, &*key, "cert", "no certificate"),
            (&*cert, &*cert, "key", "no private key"),
            (&*cert, "", "key", "no private key"),
            (&*cert, &*encrypted, "key", "passphrase"),
            (&*cert, weak, "key", "of no kind"),
            (&*cert, cut, "key", "END"),
            (&cert[..cert.len() - 30], &*key, "cert", "END"),
        ] {
            let (wrong_at, what) = read(cert, key).unwrap_err();
            assert_eq!(wrong_at, at, "{what}");
            assert!(what.contains(word), "{what}");
        }
    }
}
