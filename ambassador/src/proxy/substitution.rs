//! Secrets in the place of placeholders: in a head as it is written for a try, so that
//! each try carries what is valid then.

use std::borrow::Cow;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::credential::Credential;
use crate::credential::placeholder::{FieldText, OCCURRENCES_MAX};
use crate::message::BadMessage;
use crate::message::fields::is_between_ends;
use crate::proxy::failure::{Failure, Unanswered};
use crate::proxy::outbound::Outbound;
use crate::proxy::routing::{Incoming, RouteDecision};
use crate::proxy::sending::Sending;
use crate::ring::{self, Chunk};
use crate::upstream::credential::UpstreamCredential;
use crate::upstream::placeholders::{PlaceholderSecrets, UpstreamPlaceholders};

/// The secrets that a request needs, each once.
///
/// # Errors
/// It has more placeholders than one head may.
pub(crate) fn needed<'p>(
    placeholders: &'p UpstreamPlaceholders,
    route: &RouteDecision,
    incoming: &Incoming<'_>,
) -> Result<Vec<&'p Arc<UpstreamCredential>>, BadMessage> {
    let Incoming { request, head, .. } = incoming;
    let upstream = &route.target.upstream;
    let rules = &upstream.policies.headers;
    let own = route.target.credential();
    let is_own = |name: &[u8]| own.is_some_and(|own| own.auth.is_field(name));
    let sent = request.fields().iter();
    let sent = sent.map(|field| (Cow::from(field.name(head)), field.value(head)));
    let sent = sent.filter(|(name, _)| !rules.names(&String::from_utf8_lossy(name)));
    let set = rules.set.iter();
    let set = set.map(|(name, value)| (Cow::from(name.as_bytes()), value.as_bytes()));
    let (mut needed, mut count) = (Vec::<&Arc<UpstreamCredential>>::new(), 0);
    let all = sent.chain(set);
    for (name, value) in all.filter(|(name, _)| is_searched(name) && !is_own(name)) {
        for name in FieldText::of(&name, value).names() {
            let Some(found) = placeholders.find(name) else {
                placeholders.tell_of_unknown(&upstream.name, name);
                continue;
            };
            count += 1;
            if count > OCCURRENCES_MAX {
                return Err(BadMessage::HeadTooLarge);
            }
            if !needed.iter().any(|known| Arc::ptr_eq(known, found)) {
                needed.push(found);
            }
        }
    }
    Ok(needed)
}

/// Whether placeholders are looked for in a field.
fn is_searched(name: &[u8]) -> bool {
    is_between_ends(name)
}

/// A value in which secrets stand, `None` of it: there is nothing to replace.
///
/// # Errors
/// There is no secret for one of its placeholders.
pub(crate) fn with_secrets(
    secrets: &PlaceholderSecrets<'_>,
    name: &[u8],
    value: &[u8],
) -> Result<Option<Zeroizing<Vec<u8>>>, MissingSecret> {
    if !is_searched(name) {
        return Ok(None);
    }
    let text = FieldText::of(name, value);
    if text.names().any(|name| secrets.find(name) == Some(None)) {
        return Err(MissingSecret);
    }
    Ok(text.with_secrets(|name| secrets.find(name).flatten()))
}

/// There is no secret for a placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MissingSecret;

impl Sending<'_> {
    /// A head as it was written, with secrets in place of placeholders. The field of the
    /// upstream's own credential stays as it is.
    #[cold]
    #[inline(never)]
    pub(crate) fn substituted(
        &mut self,
        outbound: &Outbound,
        encoded: Chunk,
        own: Option<&Credential>,
    ) -> Result<Chunk, Failure> {
        let Some(placeholders) = self.target().placeholders() else {
            return Ok(encoded);
        };
        let own = match own {
            Some(Credential::Header { name, .. }) => name.as_bytes(),
            _ => b"",
        };
        let secrets = placeholders.secrets(ring::now());
        let of_field = |name: &[u8], value: &[u8]| match name.eq_ignore_ascii_case(own) {
            true => Ok(None),
            false => with_secrets(&secrets, name, value),
        };
        let substituted = outbound.substituted(&encoded, of_field);
        let substituted = substituted
            .map_err(|MissingSecret| Failure::Unanswered(Unanswered::WITHOUT_CREDENTIAL))?;
        if substituted.is_some() {
            self.presented.get_or_insert_default().secrets = secrets.number();
        }
        Ok(substituted.unwrap_or(encoded))
    }
}
