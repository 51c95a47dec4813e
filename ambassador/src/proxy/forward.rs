//! One request, from its head to its end: the order of the filters, written
//! once, as straight-line code.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Instant;
use crate::combinators::{first, rarely};
use crate::message::{CallerTimeout, Reason, RequestHead, ResponseHead, Version};
use crate::proxy::admission::Admission;
use crate::proxy::after::After;
use crate::proxy::client::{ClientRef, Origin};
use crate::proxy::context::{Context, Scratch};
use crate::proxy::deadlines::Deadlines;
use crate::proxy::delivered::Delivered;
use crate::proxy::delivery::{Delivery, Outcome, Switched};
use crate::proxy::downstream::{Downstream, Parts};
use crate::proxy::generation::Target;
use crate::proxy::pick::{self, Criteria};
use crate::proxy::progress::Progress;
use crate::proxy::refusal::Refusal;
use crate::proxy::replay::Replay;
use crate::proxy::request_facts::RequestFacts;
use crate::proxy::routing::{self, Addressee, Identity, Incoming, RouteDecision};
use crate::proxy::sending::{Lane, Sending};
use crate::proxy::substitution;
use crate::proxy::switch::{self, Connect};
use crate::proxy::tries::Tries;
use crate::ring::{self, Chunk, Gather, timer};
use crate::route::Tunnelled;
use crate::telemetry::{Description, Direction, RequestGuard, RequestProtocol, RequestRecord};
use crate::upstream::credential::UpstreamCredential;
use crate::upstream::health::UpstreamHealth;
use crate::upstream::key::Protocol;

/// How long a request waits at most for the first credential of its upstream.
const CREDENTIAL_WITHIN: Duration = Duration::from_secs(2);

/// Serves one request whose head is `head`, parsed into `scratch.request`.
pub(crate) async fn forward(
    downstream: &mut Downstream<'_>,
    scratch: &mut Scratch,
    head: Chunk,
) -> After {
    let client = &downstream.client();
    let context = Rc::clone(client.context);
    let (request, bytes) = (&scratch.request, &*head);
    let facts = RequestFacts::of(request, bytes);
    let mut record = begin(client, facts, downstream.head_bytes(bytes));

    // Where to, and under which identity and trace; the log tells of those that
    // are refused as well.
    let (destination, authority) = (client.destination(), &mut scratch.authority);
    let found = routing::find(&context, destination, request, bytes, authority);
    let known = found.as_ref().ok().and_then(Option::as_ref);
    let identity = Identity::of(request, bytes, known);
    if record.is_logged() || known.is_none() {
        let request_id = identity.request_id(request, bytes, known);
        record.describe(described(request, bytes, request_id, client.peer_id()));
    }
    // Long, and so not moved.
    let route = match &found {
        Ok(Some(route)) => route,
        none => {
            drop(head);
            let malformed = none.as_ref().err().copied().map(Refusal::Malformed);
            let refusal = malformed.unwrap_or(Reason::NoRoute.into());
            let ended = Delivery::new(facts, &scratch.response);
            return rarely(ended.refuse(downstream, record, refusal)).await;
        }
    };
    let target = &route.target;
    target.count_use();
    client.member.asks(target.shared.id);
    record.passage.upstream = target.shared.label;
    if let Some(connect) = connect(client, facts, target, request, bytes) {
        drop(head);
        return rarely(switch::connect(downstream, record, connect)).await;
    }

    // Admitted and tried, for as long as its caller is there.
    let health = pick::health_for(&context.pools, target, client.origin.namespace);
    let mut incoming = incoming(client, target, request, head, identity);
    let outcome = {
        let mut routed = RoutedRequest {
            context: &context,
            route,
            health: &health,
            incoming: &mut incoming,
            facts,
            record: &record,
            origin: client.origin,
            caller: downstream.parts(),
            response: &mut scratch.response,
        };
        let left = routed.caller.send.caller_left(&context);
        first(routed.serve(), left).await.left_or(Outcome::Left)
    };

    // Whatever came of it, its caller is told; who asks why, too.
    if !matches!(outcome, Outcome::Complete(..)) || record.is_notable() {
        tell(&mut record, &downstream.client(), &incoming, route);
    }
    let ended = Delivery::new(facts, &scratch.response);
    match outcome {
        Outcome::Complete(whole, end) => ended.complete(downstream, record, whole, end),
        other => rarely(ended.deliver(downstream, record, target, other)).await,
    }
}

/// Starts the record of a request.
#[inline(always)]
fn begin(client: &ClientRef<'_>, facts: RequestFacts, head_bytes: u64) -> RequestGuard {
    let telemetry = &client.context.telemetry;
    let mut record = telemetry.begin(client.passage(ring::now()));
    record.method = facts.method.into();
    record.protocol = match facts.version {
        Version::Http10 | Version::Http11 => RequestProtocol::Http1,
        Version::Http2 => RequestProtocol::Http2,
    };
    record.passage.count(Direction::Sent, head_bytes);
    record
}

/// Copies what is told of a request that may have failed.
#[cold]
fn tell(
    record: &mut RequestGuard,
    client: &ClientRef<'_>,
    incoming: &Incoming<'_>,
    route: &RouteDecision,
) {
    let Incoming { request, head, .. } = incoming;
    let request_id = incoming.identity.request_id(request, head, Some(route));
    record.describe(described(request, head, request_id, client.peer_id()));
}

/// What log and `why` tell of a request.
fn described<'a>(
    request: &RequestHead,
    head: &'a [u8],
    request_id: &'a [u8],
    peer_id: &'a [u8],
) -> Description<'a> {
    Description {
        method: request.method_bytes(head),
        authority: request.authority_bytes(head),
        path: request.path(head),
        request_id,
        peer_id,
    }
}

/// A request as it came, for each try to encode.
#[inline(always)]
fn incoming<'a>(
    client: &ClientRef<'_>,
    target: &Target,
    request: &'a RequestHead,
    head: Chunk,
    identity: Identity,
) -> Incoming<'a> {
    Incoming {
        request,
        head,
        identity,
        original: client.origin.original,
        certificate: client.certificate.cloned(),
        addressed_to: client.addresses(),
        presented_to: match client.bound.is_asked_by_proxy(&target.shared) {
            true => Addressee::Upstream,
            false => Addressee::Proxy,
        },
    }
}

/// A CONNECT that is addressed to this proxy; `None`: it is none.
fn connect<'a>(
    client: &ClientRef<'_>,
    facts: RequestFacts,
    target: &'a Target,
    request: &RequestHead,
    head: &[u8],
) -> Option<Connect<'a>> {
    if !request.is_connect() || client.addresses() != Addressee::Proxy {
        return None;
    }
    let authority = request.authority(head, None).ok().flatten()?;
    Some(Connect {
        facts,
        target,
        key: pick::request_key(target, request, head, client.origin.peer),
        tunnel: Tunnelled {
            authority,
            upstream: Arc::clone(&target.upstream.name),
        },
    })
}

/// A request whose upstream is known.
struct RoutedRequest<'a, 'r, 'i> {
    context: &'a Context,
    route: &'a RouteDecision,
    health: &'a UpstreamHealth,
    incoming: &'r mut Incoming<'i>,
    facts: RequestFacts,
    record: &'r RequestRecord,
    origin: Origin,
    caller: Parts<'r>,
    response: &'r mut ResponseHead,
}

impl<'a> RoutedRequest<'a, '_, '_> {
    /// Has it admitted, then makes one try after another, until there is an answer
    /// or no time, no budget and no reason for one more.
    async fn serve(&mut self) -> Outcome<'a> {
        let (context, route) = (self.context, self.route);
        let policies = &route.target.upstream.policies;
        let timeout = route.caller_timeout(self.incoming);
        let mut arrived = self.admission(timeout);
        let admitted = match arrived.admit().await {
            Ok(admitted) => admitted,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        if !route.target.is_ready(ring::now())
            && let Some(refusal) = rarely(self.await_secrets(timeout)).await
        {
            return Outcome::Refused(refusal);
        }
        let (target, journal) = (&route.target, &self.record.passage.journal);
        let mut tries = Tries::new(context, target, self.health, self.criteria(), journal);
        let mut one = match tries.begin() {
            Ok(one) => one,
            Err(reason) => return Outcome::Refused(reason.into()),
        };

        // What of the body is here already, and what is kept of it. Nothing of the
        // shared buffers is kept while a peer is waited for.
        self.incoming.head.detach();
        let replay = self.replay();
        let progress = Progress::new(self.record, Some(self.caller.member));
        // An injected delay is not the upstream's.
        let began = self.record.passage.started + admitted.delayed;
        let left = timeout
            .limit()
            .map(|it| it.saturating_sub(admitted.delayed));
        let mut sending = Sending {
            context,
            recv: self.caller.recv.reborrow(),
            send: self.caller.send,
            bound: self.caller.bound,
            lane: Lane::Pool,
            namespace: self.origin.namespace,
            route,
            incoming: self.incoming,
            facts: self.facts,
            response: self.response,
            record: self.record,
            progress: &progress,
            outgoing: Some(Gather::default()),
            replay,
            deadlines: &Deadlines::new(&policies.timeouts, began).bounded_by(left),
            awaiting: Some(admitted.awaiting),
            presented: None,
        };
        if let Err(bad) = sending.take_along() {
            return Outcome::Refused(Refusal::Malformed(bad));
        }
        if sending.signs_whole_body()
            && let Some(refusal) = rarely(sending.complete_body()).await
        {
            return Outcome::Refused(refusal);
        }
        let (result, stopped) = sending.run(&mut tries, &mut one).await;
        match result {
            Ok(Delivered::Complete(complete)) => Outcome::Complete(complete, stopped),
            Ok(Delivered::Switched(to)) => Outcome::Switched(Box::new(Switched {
                to,
                _in_flight: admitted.in_flight,
                _pick: one.into_pick(),
            })),
            Err(failure) => Outcome::Failed(failure, stopped),
        }
    }

    /// Waits while the credential of its upstream is fetched for the first time. Whether
    /// there is one then.
    async fn await_credential(
        &mut self,
        credential: &UpstreamCredential,
        timeout: CallerTimeout,
    ) -> bool {
        self.incoming.head.detach();
        self.caller.recv.detach();
        let request = self.route.target.upstream.policies.timeouts.request;
        let started = self.record.passage.started;
        let limits = [request, timeout.limit()].into_iter().flatten();
        let until = limits.map(|limit| started + limit);
        let until = until.fold(ring::now() + CREDENTIAL_WITHIN, Instant::min);
        // Whether it came is seen below.
        let _ = timer::timeout_at(until, credential.settled(ring::now)).await;
        credential.is_valid(ring::now())
    }

    /// Waits for the credential of its upstream, and for the secrets in place of its
    /// placeholders. `Some`: there is none.
    async fn await_secrets(&mut self, timeout: CallerTimeout) -> Option<Refusal> {
        let target = &self.route.target;
        let mut needed = Vec::from_iter(target.credential());
        if let Some(placeholders) = target.placeholders() {
            match substitution::needed(placeholders, self.route, self.incoming) {
                Ok(secrets) => needed.extend(secrets),
                Err(bad) => return Some(Refusal::Malformed(bad)),
            }
        }
        for secret in needed {
            if !secret.is_valid(ring::now()) && !self.await_credential(secret, timeout).await {
                return Some(Reason::AuthUnavailable.into());
            }
        }
        None
    }

    /// Itself, for those who admit it.
    #[inline]
    fn admission(&mut self, timeout: CallerTimeout) -> Admission<'a, '_> {
        Admission {
            context: self.context,
            route: self.route,
            health: self.health,
            original: self.origin.original,
            request: self.incoming.request,
            head: &mut self.incoming.head,
            recv: self.caller.recv.reborrow(),
            timeout,
            record: self.record,
            now: self.record.passage.started,
        }
    }

    /// What is kept of its body for another try.
    #[inline(always)]
    fn replay(&self) -> Replay {
        let target = &self.route.target;
        let policies = &target.upstream.policies;
        let Incoming { request, head, .. } = &*self.incoming;
        match routing::may_be_sent_twice(policies, request, head) {
            true => Replay::up_to(policies.retry.body_limit),
            // Over HTTP/2 a server may say that it has not processed a request.
            false if target.has_secrets() || self.may_be_refused() => {
                Replay::of_refused(policies.retry.body_limit)
            }
            false => Replay::none(),
        }
    }

    /// Whether what its upstream speaks knows refusals besides those of credentials.
    fn may_be_refused(&self) -> bool {
        self.route.protocol(self.incoming, self.facts) != Protocol::Http1
    }

    /// What its endpoints are chosen by.
    #[inline]
    fn criteria(&self) -> Criteria<'static> {
        let (target, origin) = (&self.route.target, self.origin);
        let Incoming { request, head, .. } = &*self.incoming;
        Criteria {
            namespace: origin.namespace,
            original: origin.original,
            key: pick::request_key(target, request, head, origin.peer),
            bound: self.caller.bound.endpoint(&target.shared, origin.namespace),
            ..Criteria::default()
        }
    }
}

#[cfg(test)]
mod tests;
