//! What a request shows about who sends it, added on the way out: secrets, and the
//! credentials made of them. No I/O: the control side reads files and asks servers.

pub(crate) mod secret;
pub mod settings;
pub(crate) mod token;

pub(crate) use secret::Secret;

use settings::Auth;
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
}

impl Credential {
    /// What `auth` makes of what its source gave.
    ///
    /// # Errors
    /// It cannot be sent.
    pub(crate) fn of(auth: &Auth, token: &Secret) -> Result<Self, TokenMistake> {
        let value = match auth {
            Auth::Bearer(_) => {
                token::check_bearer(token)?;
                [b"Bearer ", token.expose()].concat()
            }
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
        let Credential::Header { name, value } = credential;
        assert_eq!(
            (&*name, value.expose()),
            ("Authorization", &b"Bearer t0ken"[..])
        );
        let words = Secret::from(b"t0 ken".to_vec());
        assert_eq!(Credential::of(&auth, &words), Err(TokenMistake::NoToken));
    }
}
