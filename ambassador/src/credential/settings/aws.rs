//! Keys of AWS, and what they sign.

use std::path::PathBuf;

use crate::credential::sigv4::Scope;

/// Signatures of AWS on each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigV4 {
    /// What the signatures hold for.
    pub(crate) scope: Scope,
    /// Where the keys come from.
    pub(crate) keys: AwsKeySource,
}

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AwsKeySource {
    /// `AWS_ACCESS_KEY_ID` and what belongs to it.
    Env,
    /// A section of a shared credentials file.
    Profile {
        /// The file.
        file: PathBuf,
        /// The name of the section.
        profile: String,
    },
    /// A role, for a token, as the environment says (`AssumeRoleWithWebIdentity`).
    WebIdentity,
    /// The agent of ECS or EKS, as the environment says.
    Container,
}

impl AwsKeySource {
    /// The file that it names.
    pub(super) fn file_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Profile { file, .. } => Some(file),
            Self::Env | Self::WebIdentity | Self::Container => None,
        }
    }
}
