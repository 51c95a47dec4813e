//! Keys of AWS, and what they sign.

use std::path::PathBuf;

use super::servers::{Subject, TokenServer};
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
    /// The same, as the file says.
    Exchange(Box<RoleExchange>),
    /// The agent of ECS or EKS, as the environment says.
    Container,
}

/// A role that is assumed for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleExchange {
    /// The Security Token Service.
    pub(crate) server: TokenServer,
    /// The token that is shown.
    pub(crate) subject: Subject,
    /// Its ARN.
    pub(crate) role: String,
    /// What the session is called in the logs of AWS.
    pub(crate) session: String,
}

/// What a session is called where nothing is said.
pub(crate) const SESSION: &str = "ambassador";

/// The URL of the Security Token Service of a region.
pub(crate) fn sts_of(region: &str) -> String {
    let domain = match region.starts_with("cn-") {
        true => "amazonaws.com.cn",
        false => "amazonaws.com",
    };
    format!("https://sts.{region}.{domain}/")
}

impl AwsKeySource {
    /// The files that it names.
    pub(super) fn files_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Profile { file, .. } => vec![file],
            Self::Exchange(exchange) => {
                let own = exchange.subject.file_mut().into_iter();
                own.chain(exchange.server.files_mut()).collect()
            }
            Self::Env | Self::WebIdentity | Self::Container => Vec::new(),
        }
    }

    /// The token that is shown for keys, where the file says which.
    pub(crate) fn subject(&self) -> Option<&Subject> {
        match self {
            Self::Exchange(exchange) => Some(&exchange.subject),
            Self::Env | Self::Profile { .. } | Self::WebIdentity | Self::Container => None,
        }
    }
}
