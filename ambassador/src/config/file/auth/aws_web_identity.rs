//! `auth.token_exchange` with `grant: aws_web_identity`: keys of AWS that are got for a
//! token, and what they sign.

use serde_json::{Value as Json, json};

use super::Carrier;
use super::server::{optional, required, scope, server};
use super::token_exchange::{GrantKind, SubjectWord, TokenExchange, shown_exchange};
use crate::config::findings::Findings;
use crate::config::read::{Either, Place, Spanned};
use crate::credential::settings::aws::{self, AwsKeySource, RoleExchange, SigV4};
use crate::credential::settings::servers::Subject;

/// The audience that AWS' own tools have in tokens for its Security Token Service.
const AUDIENCE: &str = "sts.amazonaws.com";

impl TokenExchange {
    /// Keys of a role, and what they sign.
    pub(super) fn keys(
        &self,
        place: &Place,
        carrier: Carrier<'_>,
        findings: &mut Findings,
    ) -> Option<SigV4> {
        let role = required(&self.role, place, "must have a role", findings);
        if let Some(role) = self
            .role
            .as_ref()
            .filter(|it| !it.value.0.starts_with("arn:"))
        {
            findings.mistake_at(
                role,
                "must be an ARN, as arn:aws:iam::123456789012:role/orders",
            );
        }
        let session = optional(&self.session).unwrap_or_else(|| aws::SESSION.to_owned());
        if let Some(own) = self.session.as_ref().filter(|_| !is_session(&session)) {
            findings.mistake_at(own, "has 2 to 64 letters, digits and characters of _=,.@-");
        }
        let subject = self.subject.as_ref();
        let is_svid = |it: &Spanned<_>| matches!(it.value, Either::Short(SubjectWord::Spiffe));
        let is_of_file = subject.is_some_and(|subject| !is_svid(subject));
        if let Some(audience) = self.audience.as_ref().filter(|_| is_of_file) {
            let what = "is for subject: spiffe alone: the token of a file has its own";
            findings.mistake_at(audience, what);
        }
        let audience = optional(&self.audience).unwrap_or_else(|| AUDIENCE.to_owned());
        let subject = self.subject(place, carrier, audience, findings);
        let scope = scope(&self.service, &self.region, place, findings);
        let url = self.url(GrantKind::AwsWebIdentity, place, findings);
        let exchange = RoleExchange {
            server: server(url?, &self.tls, findings),
            subject: subject?,
            role: role?,
            session,
        };
        Some(SigV4 {
            scope: scope?,
            keys: AwsKeySource::Exchange(Box::new(exchange)),
        })
    }
}

/// Whether the Security Token Service takes it (`RoleSessionName`).
fn is_session(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_=,.@-".contains(&b);
    (2..=64).contains(&name.len()) && name.bytes().all(allowed)
}

/// As the file would write it.
pub(super) fn shown(settings: &SigV4, exchange: &RoleExchange) -> Json {
    let mut shown = shown_exchange(&exchange.server, &exchange.subject);
    shown["grant"] = json!("aws_web_identity");
    shown["role"] = json!(exchange.role);
    shown["session"] = json!(exchange.session);
    shown["service"] = json!(settings.scope.service);
    shown["region"] = json!(settings.scope.region);
    if let Subject::Spiffe(wanted) = &exchange.subject {
        shown["audience"] = json!(wanted.audience);
    }
    shown
}
