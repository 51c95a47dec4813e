//! The shared credentials file of AWS: sections of `name = value` lines.

use std::fmt;

use super::secret::Secret;
use super::sigv4::AwsKeys;

/// Why a file has no keys. Tells nothing of what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProfileError {
    /// It is no text.
    Binary,
    /// There is no section of this name.
    MissingSection(String),
    /// The section has no such line.
    MissingKey(&'static str),
}

/// The keys of a profile. The last of several lines of one name counts, as it does for
/// AWS' own tools.
///
/// # Errors
/// See [`ProfileError`].
pub fn keys(file: &Secret, profile: &str) -> Result<AwsKeys, ProfileError> {
    let text = std::str::from_utf8(file.expose()).map_err(|_| ProfileError::Binary)?;
    let (mut is_inside, mut is_there) = (false, false);
    let (mut id, mut secret, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let name = section.split(']').next().unwrap_or_default().trim();
            is_inside = name == profile;
            is_there |= is_inside;
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let value = value.trim();
        if !is_inside || line.starts_with(['#', ';']) || value.is_empty() {
            continue;
        }
        match name.trim().to_ascii_lowercase().as_str() {
            "aws_access_key_id" => id = Some(value),
            "aws_secret_access_key" => secret = Some(value),
            "aws_session_token" => token = Some(value),
            _ => {}
        }
    }
    if !is_there {
        return Err(ProfileError::MissingSection(profile.to_owned()));
    }
    let of = |text: &str| Secret::from(text.as_bytes().to_vec());
    Ok(AwsKeys {
        id: id
            .ok_or(ProfileError::MissingKey("aws_access_key_id"))?
            .to_owned(),
        secret: of(secret.ok_or(ProfileError::MissingKey("aws_secret_access_key"))?),
        token: token.map(of),
    })
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binary => f.write_str("is no text"),
            Self::MissingSection(name) => write!(f, "has no section [{name}]"),
            Self::MissingKey(name) => write!(f, "has no {name} in the section of the profile"),
        }
    }
}

impl std::error::Error for ProfileError {}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# of the operator
aws_access_key_id = outside
[default]
aws_access_key_id = AKID
aws_secret_access_key=s3cr=et/+
; aws_session_token = old
region = eu-west-1

[ other ] # with blanks
AWS_ACCESS_KEY_ID = first
aws_access_key_id = other
  aws_secret_access_key = o
aws_session_token = tok==
[empty]
aws_access_key_id =
[half]
aws_access_key_id = x
";

    fn read(profile: &str) -> Result<AwsKeys, ProfileError> {
        keys(&Secret::from(FILE.as_bytes().to_vec()), profile)
    }

    fn of(id: &str, secret: &str, token: Option<&str>) -> AwsKeys {
        let secret_of = |text: &str| Secret::from(text.as_bytes().to_vec());
        AwsKeys {
            id: id.to_owned(),
            secret: secret_of(secret),
            token: token.map(secret_of),
        }
    }

    #[test]
    fn a_profile_has_its_own_keys() {
        assert_eq!(read("default"), Ok(of("AKID", "s3cr=et/+", None)));
        assert_eq!(read("other"), Ok(of("other", "o", Some("tok=="))));
    }

    #[test]
    fn what_is_missing_is_told() {
        assert_eq!(read("x"), Err(ProfileError::MissingSection("x".to_owned())));
        assert_eq!(
            read("empty"),
            Err(ProfileError::MissingKey("aws_access_key_id"))
        );
        assert_eq!(
            read("half"),
            Err(ProfileError::MissingKey("aws_secret_access_key"))
        );
        let binary = Secret::from(vec![0xff]);
        assert_eq!(keys(&binary, "default").err(), Some(ProfileError::Binary));
    }
}
