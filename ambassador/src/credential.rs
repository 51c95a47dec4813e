//! What a request shows about who sends it, added on the way out: secrets, and the
//! credentials made of them. No I/O: the control side reads files and asks servers.

pub(crate) mod aws_error;
pub(crate) mod aws_profile;
pub(crate) mod form;
pub(crate) mod jwt;
pub(crate) mod key_set;
pub(crate) mod placeholder;
pub(crate) mod secret;
pub(crate) mod server_url;
pub mod settings;
pub(crate) mod signed_body;
pub(crate) mod signing_key;
pub(crate) mod sigv4;
pub(crate) mod spiffe_id;
pub(crate) mod token;
pub(crate) mod workload_endpoint;

pub use secret::Secret;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use zeroize::Zeroizing;

use settings::Auth;
use sigv4::{AwsKeys, Signer};
use token::TokenMistake;

/// What a request gets on its way to an upstream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Credential {
    /// A field, in place of the program's own fields of that name.
    Header {
        /// Its name as it is sent.
        name: Box<str>,
        /// Its value as it is sent.
        value: Secret,
    },
    /// Signatures of AWS, in place of the program's own.
    Signatures(Signer),
    /// A secret in place of its placeholder.
    Substitute(Secret),
}

/// What a source gives.
#[derive(Debug)]
pub(crate) enum Material {
    /// A secret that is sent, without a scheme.
    Secret(Secret),
    /// Keys that sign.
    Keys(AwsKeys),
}

impl Credential {
    /// What `auth` makes of it.
    ///
    /// # Errors
    /// It cannot be sent.
    pub(crate) fn made_of(auth: &Auth, material: Material) -> Result<Self, TokenMistake> {
        match (auth, material) {
            (Auth::SigV4(settings), Material::Keys(keys)) => {
                Ok(Self::Signatures(Signer::new(keys, settings.scope.clone())))
            }
            (Auth::Placeholder { .. }, Material::Secret(secret)) => Ok(Self::Substitute(secret)),
            (_, Material::Secret(secret)) => Self::of(auth, &secret),
            // No source gives that.
            (_, Material::Keys(_)) => Err(TokenMistake::Empty),
        }
    }

    /// What `auth` makes of what its source gave.
    ///
    /// # Errors
    /// It cannot be sent.
    pub(crate) fn of(auth: &Auth, token: &Secret) -> Result<Self, TokenMistake> {
        let value = match auth {
            Auth::Bearer(_) | Auth::OAuth2(_) | Auth::TokenExchange(_) => {
                token::check_bearer(token)?;
                [b"Bearer ", token.expose()].concat()
            }
            Auth::Basic { user, .. } => {
                let pair = [user.as_bytes(), b":", token.expose()].concat();
                let pair = Zeroizing::new(pair);
                let encoded = Zeroizing::new(BASE64_STANDARD.encode(&*pair));
                [b"Basic ", encoded.as_bytes()].concat()
            }
            Auth::Header { .. } | Auth::Identity(_) => token.expose().to_vec(),
            // A signature takes more than a secret, and a placeholder no field.
            Auth::SigV4(_) | Auth::Placeholder { .. } => return Err(TokenMistake::Empty),
        };
        Ok(Self::Header {
            name: auth.field().into(),
            value: value.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::settings::TokenSource;
    use super::*;

    #[test]
    fn a_token_is_sent_behind_its_scheme_and_shown_to_nobody() {
        let auth = Auth::Bearer(TokenSource::File("/a".into()));
        let secret = Secret::from(b"t0ken".to_vec());
        let credential = Credential::of(&auth, &secret).unwrap();
        assert!(!format!("{credential:?}").contains("t0ken"));
        let Credential::Header { name, value } = credential else {
            panic!()
        };
        assert_eq!(
            (&*name, value.expose()),
            ("Authorization", &b"Bearer t0ken"[..])
        );
        let words = Secret::from(b"t0 ken".to_vec());
        assert_eq!(Credential::of(&auth, &words), Err(TokenMistake::NoToken));
    }

    fn sent(auth: &Auth, secret: &str) -> String {
        let secret = Secret::from(secret.as_bytes().to_vec());
        let Credential::Header { name, value } = Credential::of(auth, &secret).unwrap() else {
            panic!()
        };
        format!("{name}: {}", String::from_utf8_lossy(value.expose()))
    }

    /// The examples of RFC 7617 sections 2 and 2.1.
    #[test]
    fn a_password_is_sent_as_basic_has_it() {
        let auth = |user: &str| Auth::Basic {
            user: user.into(),
            password: "/a".into(),
        };
        let expected = "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        assert_eq!(sent(&auth("Aladdin"), "open sesame"), expected);
        let expected = "Authorization: Basic dGVzdDoxMjPCow==";
        assert_eq!(sent(&auth("test"), "123\u{a3}"), expected);
    }

    #[test]
    fn a_field_of_any_name_has_the_secret_alone() {
        let auth = Auth::Header {
            name: "X-Api-Key".into(),
            value: "/a".into(),
        };
        assert_eq!(sent(&auth, "k3y of mine"), "X-Api-Key: k3y of mine");
        assert!(auth.is_field(b"x-api-key") && !auth.is_field(b"authorization"));
    }
}
