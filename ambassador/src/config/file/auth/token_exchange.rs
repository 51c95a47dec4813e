//! `auth.token_exchange`: a token, or keys of AWS, that are got for another token.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::server::{ServerTls, optional, required, scopes, server, shown_tls};
use super::{Carrier, SecretFile, file};
use crate::config::findings::Findings;
use crate::config::read::{Either, Place, Spanned, object};
use crate::config::setting::Value as _;
use crate::config::values::{Text, Url, choice};
use crate::credential::server_url::ServerUrl;
use crate::credential::settings::Auth;
use crate::credential::settings::aws;
use crate::credential::settings::servers::{self, ExchangeGrant, Subject, TokenServer};

/// The token of the service account of a pod.
const KUBERNETES: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const GCP_URL: &str = "https://sts.googleapis.com/v1/token";
/// What a token of Google Cloud allows where nothing is said.
const GCP_SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// What is said of a key that means nothing to a grant.
const UNUSED: &str = "does nothing with this grant";

object! {
    /// A bearer token that is got for another one, the subject; with `aws_web_identity`
    /// keys of AWS, which sign the requests as those of `sigv4` do. It is got again before
    /// it ends.
    #[schemars(extend("required" = ["grant", "subject"]))]
    TokenExchange {
        /// What the server speaks. Required.
        grant: GrantKind,
        /// The URL of the token endpoint: `https`, or `http` on loopback. Required for
        /// `rfc8693`. Absent: `https://sts.REGION.amazonaws.com/` for `aws_web_identity`,
        /// `https://sts.googleapis.com/v1/token` for `gcp`, and
        /// `https://login.microsoftonline.com/TENANT/oauth2/v2.0/token` for `azure`.
        url: Url,
        /// The token that is shown: a file; `kubernetes`, the service account's token
        /// at `/var/run/secrets/kubernetes.io/serviceaccount/token`; or `spiffe`, a
        /// JWT-SVID of the Workload API of `identity.spiffe`. Its audience is the URL of
        /// the token endpoint; for `gcp` that of the provider, `https:` and `audience`;
        /// for `azure` `api://AzureADTokenExchange`, for `aws_web_identity`
        /// `sts.amazonaws.com` or `audience`. Required.
        subject: Either<SubjectWord, SecretFile>,
        /// Who is to accept the token. `gcp` needs the full name of the provider of the
        /// pool; for `azure`, `AUDIENCE/.default` is the scope where none is given; for
        /// `aws_web_identity` it is the audience of a JWT-SVID.
        audience: Text,
        /// What the token is to allow. Absent for `gcp`: whatever the roles of its holder
        /// allow.
        scopes: Vec<Spanned<Text>>,
        /// For `gcp`: the e-mail address of a service account, or the URL at which a token
        /// of it is got. The request carries the token of the service account.
        impersonate: Text,
        /// For `azure`: the tenant.
        tenant: Text,
        /// For `azure`: the application.
        client_id: Text,
        /// For `aws_web_identity`: the ARN of the role whose keys are got. Required there.
        role: Text,
        /// For `aws_web_identity`: what the session is called in the logs of AWS.
        /// Absent: `ambassador`.
        session: Text,
        /// For `aws_web_identity`: the service that is called, as `s3` or `dynamodb`.
        /// Required there.
        service: Text,
        /// For `aws_web_identity`: the region that is called, as `eu-west-1`. Required
        /// there.
        region: Text,
        /// How the connection to the server is encrypted.
        tls: ServerTls,
    }
}

choice! {
    /// A token that needs no more words.
    SubjectWord: Option<&'static str> {
        /// The token of the pod's service account.
        Kubernetes = "kubernetes" => Some(KUBERNETES),
        /// A JWT-SVID.
        Spiffe = "spiffe" => None,
    }
}

choice! {
    /// What a server speaks that exchanges tokens.
    GrantKind: &'static str {
        /// OAuth 2.0 Token Exchange.
        Rfc8693 = "rfc8693" => "rfc8693",
        /// `AssumeRoleWithWebIdentity` of AWS.
        AwsWebIdentity = "aws_web_identity" => "aws_web_identity",
        /// Google Cloud's workload identity federation.
        Gcp = "gcp" => "gcp",
        /// Microsoft Entra's federated credentials.
        Azure = "azure" => "azure",
    }
}

impl TokenExchange {
    pub(super) fn settings(
        &self,
        place: &Place,
        carrier: Carrier<'_>,
        findings: &mut Findings,
    ) -> Option<Auth> {
        let Some(kind) = self.grant.as_ref().map(|grant| grant.value) else {
            findings.mistake_unless_inside(place, "must have a grant");
            return None;
        };
        self.check_unused(kind, findings);
        if matches!(kind, GrantKind::AwsWebIdentity) {
            let settings = self.keys(place, carrier, findings);
            return settings.map(Auth::SigV4);
        }
        let grant = self.grant(kind, place, findings);
        let url = self.url(kind, place, findings);
        let (url, grant) = (url?, grant?);
        let subject = self.subject(place, carrier, audience(&url, &grant), findings);
        let server = server(url, &self.tls, findings);
        Some(Auth::TokenExchange(Box::new(servers::TokenExchange {
            server,
            subject: subject?,
            grant,
        })))
    }

    pub(super) fn subject(
        &self,
        place: &Place,
        carrier: Carrier<'_>,
        audience: String,
        findings: &mut Findings,
    ) -> Option<Subject> {
        let Some(subject) = self.subject.as_ref() else {
            findings.mistake_unless_inside(place, "must have a subject");
            return None;
        };
        match &subject.value {
            Either::Short(word) => match word.meaning() {
                Some(file) => Some(Subject::File(PathBuf::from(file))),
                None => {
                    let wanted = carrier.jwt_svid(audience, &subject.place, findings)?;
                    Some(Subject::Spiffe(wanted))
                }
            },
            Either::Full(named) => file(&named.file, &subject.place, findings).map(Subject::File),
        }
    }

    /// Keys that mean nothing to a grant.
    fn check_unused(&self, kind: GrantKind, findings: &mut Findings) {
        let of_gcp = matches!(kind, GrantKind::Gcp);
        let of_azure = matches!(kind, GrantKind::Azure);
        let of_aws = matches!(kind, GrantKind::AwsWebIdentity);
        let used = [
            (&self.impersonate, of_gcp),
            (&self.tenant, of_azure),
            (&self.client_id, of_azure),
            (&self.role, of_aws),
            (&self.session, of_aws),
            (&self.service, of_aws),
            (&self.region, of_aws),
        ];
        for (key, is_used) in used {
            if let Some(key) = key.as_ref().filter(|_| !is_used) {
                findings.mistake(&key.place, UNUSED);
            }
        }
        if let Some(scopes) = self.scopes.as_ref().filter(|_| of_aws) {
            findings.mistake(&scopes.place, UNUSED);
        }
    }

    fn grant(
        &self,
        kind: GrantKind,
        place: &Place,
        findings: &mut Findings,
    ) -> Option<ExchangeGrant> {
        let mut scopes = scopes(&self.scopes, findings);
        Some(match kind {
            // That is no grant of a bearer token.
            GrantKind::AwsWebIdentity => return None,
            GrantKind::Rfc8693 => ExchangeGrant::Rfc8693 {
                audience: optional(&self.audience),
                scopes,
            },
            GrantKind::Gcp => {
                if scopes.is_empty() {
                    scopes.push(GCP_SCOPE.to_owned());
                }
                let audience = required(&self.audience, place, "must have an audience", findings);
                ExchangeGrant::Gcp {
                    impersonate: self.account(findings),
                    audience: audience?,
                    scopes,
                }
            }
            GrantKind::Azure => {
                let client_id = required(&self.client_id, place, "must have a client_id", findings);
                let audience = optional(&self.audience);
                let default = audience.map(|audience| format!("{audience}/.default"));
                let scope = Some(scopes.join(" "))
                    .filter(|scope| !scope.is_empty())
                    .or(default);
                if scope.is_none() {
                    let what = "must have scopes or an audience";
                    findings.mistake_unless_inside(place, what);
                }
                ExchangeGrant::Azure {
                    client_id: client_id?,
                    scope: scope?,
                }
            }
        })
    }

    /// Where a token of a service account is got.
    fn account(&self, findings: &mut Findings) -> Option<ServerUrl> {
        let named = self.impersonate.as_ref()?;
        let text = named.value.0.as_str();
        let url = match text.contains("://") {
            true => text.to_owned(),
            false => format!(
                "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{text}\
                 :generateAccessToken"
            ),
        };
        let is_account = text.contains("://") || (text.contains('@') && !text.contains(['/', '?']));
        match ServerUrl::parse(&url) {
            Ok(url) if is_account => return Some(url),
            Ok(_) => findings.mistake_at(named, "must be an e-mail address or a URL"),
            Err(error) => findings.mistake_at(named, error.to_string()),
        }
        None
    }

    pub(super) fn url(
        &self,
        kind: GrantKind,
        place: &Place,
        findings: &mut Findings,
    ) -> Option<ServerUrl> {
        if let Some(url) = self.url.as_ref() {
            return Some(url.value.0.clone());
        }
        let text = match kind {
            GrantKind::Rfc8693 => {
                findings.mistake_unless_inside(place, "must have a url");
                return None;
            }
            GrantKind::AwsWebIdentity => aws::sts_of(&optional(&self.region)?),
            GrantKind::Gcp => GCP_URL.to_owned(),
            GrantKind::Azure => {
                let what = "must have a tenant or a url";
                let tenant = required(&self.tenant, place, what, findings)?;
                format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token")
            }
        };
        let tenant = self.tenant.as_ref();
        let is_sound = tenant.is_none_or(|tenant| !tenant.value.0.contains(['/', '?']));
        let url = ServerUrl::parse(&text).ok().filter(|_| is_sound);
        if let (None, Some(tenant)) = (&url, tenant) {
            findings.mistake_at(tenant, "must be the name or the id of a tenant");
        }
        url
    }
}

/// For whom a JWT-SVID is that is shown to a server.
fn audience(url: &ServerUrl, grant: &ExchangeGrant) -> String {
    match grant {
        ExchangeGrant::Rfc8693 { .. } => url.to_string(),
        // What the provider of a pool accepts where it is told nothing else.
        ExchangeGrant::Gcp { audience, .. } => format!("https:{audience}"),
        ExchangeGrant::Azure { .. } => "api://AzureADTokenExchange".to_owned(),
    }
}

/// As the file would write it.
pub(super) fn shown(settings: &servers::TokenExchange) -> Json {
    let mut shown = shown_exchange(&settings.server, &settings.subject);
    let more = match &settings.grant {
        ExchangeGrant::Rfc8693 { audience, scopes } => {
            json!({ "grant": "rfc8693", "audience": audience, "scopes": scopes })
        }
        ExchangeGrant::Gcp {
            audience,
            impersonate,
            scopes,
        } => json!({
            "grant": "gcp",
            "audience": audience,
            "scopes": scopes,
            "impersonate": impersonate.as_ref().map(ToString::to_string),
        }),
        ExchangeGrant::Azure { client_id, scope } => json!({
            "grant": "azure",
            "client_id": client_id,
            "scopes": scope.split(' ').collect::<Vec<_>>(),
        }),
    };
    let more = more.as_object().into_iter().flatten();
    for (key, value) in more.filter(|(_, value)| !value.is_null() && **value != json!([])) {
        shown[key] = value.clone();
    }
    shown
}

/// What every grant has.
pub(super) fn shown_exchange(server: &TokenServer, subject: &Subject) -> Json {
    let mut shown = json!({
        "url": server.url.to_string(),
        "subject": match subject {
            Subject::File(file) => json!({ "file": file.display().to_string() }),
            Subject::Spiffe(_) => json!("spiffe"),
        },
    });
    if let Some(tls) = shown_tls(server) {
        shown["tls"] = tls;
    }
    shown
}
