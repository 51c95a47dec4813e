//! `auth.sigv4`: signatures of AWS.

use serde_json::{Value as Json, json};

use super::server::{optional, scope};
use super::{aws_web_identity, file};
use crate::config::findings::Findings;
use crate::config::read::{Either, Place, object};
use crate::config::values::{FilePath, Text, choice};
use crate::credential::settings::aws::{AwsKeySource, SigV4};
use crate::credential::sigv4::Scope;

object! {
    /// Signatures of AWS, version 4, in the headers of each request.
    #[schemars(extend("required" = ["service", "region", "credentials"]))]
    Sigv4 {
        /// The service that is called, as `s3` or `dynamodb`. Required.
        service: Text,
        /// The region that is called, as `eu-west-1`. Required.
        region: Text,
        /// Where the keys come from. Required.
        credentials: Either<KeysWord, KeysFile>,
    }
}

object! {
    /// A shared credentials file, as `~/.aws/credentials`.
    #[schemars(extend("required" = ["file"]))]
    KeysFile {
        /// The file, which is read again when it changes. Required.
        file: FilePath,
        /// The name of the section.
        #[schemars(extend("default" = "default"))]
        profile: Text,
    }
}

choice! {
    /// Where the keys come from.
    KeysWord: &'static str {
        /// The proxy's own environment: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and,
        /// if there is one, `AWS_SESSION_TOKEN`.
        Env = "env" => "env",
        /// A role, for the token in the file `AWS_WEB_IDENTITY_TOKEN_FILE`: `AWS_ROLE_ARN`,
        /// with `AWS_ROLE_SESSION_NAME` as its session, as EKS sets them.
        /// `AWS_ENDPOINT_URL_STS` may name another server than that of the region.
        WebIdentity = "web_identity" => "web_identity",
        /// The agent of ECS or EKS: `AWS_CONTAINER_CREDENTIALS_FULL_URI` or
        /// `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`.
        Container = "container" => "container",
    }
}

impl Sigv4 {
    pub(super) fn settings(&self, place: &Place, findings: &mut Findings) -> Option<SigV4> {
        let scope = scope(&self.service, &self.region, place, findings);
        let Some(credentials) = self.credentials.as_ref() else {
            findings.mistake_unless_inside(place, "must have credentials");
            return None;
        };
        let keys = match &credentials.value {
            Either::Short(KeysWord::Env) => AwsKeySource::Env,
            Either::Short(KeysWord::WebIdentity) => AwsKeySource::WebIdentity,
            Either::Short(KeysWord::Container) => AwsKeySource::Container,
            Either::Full(named) => AwsKeySource::Profile {
                file: file(&named.file, &credentials.place, findings)?,
                profile: optional(&named.profile).unwrap_or_else(|| "default".to_owned()),
            },
        };
        Some(SigV4 {
            scope: scope?,
            keys,
        })
    }
}

/// As the file would write it.
pub(super) fn shown(settings: &SigV4) -> Json {
    let Scope { service, region } = &settings.scope;
    let credentials = match &settings.keys {
        AwsKeySource::Exchange(exchange) => return aws_web_identity::shown(settings, exchange),
        AwsKeySource::Env => "env".into(),
        AwsKeySource::WebIdentity => "web_identity".into(),
        AwsKeySource::Container => "container".into(),
        AwsKeySource::Profile { file, profile } => {
            json!({ "file": file.display().to_string(), "profile": profile })
        }
    };
    json!({ "service": service, "region": region, "credentials": credentials })
}
