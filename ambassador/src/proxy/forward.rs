//! One request, from its head to its end: the order of the filters, written
//! once, as straight-line code.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::http::{BodyReader, LocalReply, Reason};
use crate::policy::rate_limit::Turn;
use crate::policy::retry::{Again, Ended, Next, NextPlace, Pays};
use crate::proxy::after::After;
use crate::proxy::asked::Asked;
use crate::proxy::attempt::{self, Lane, Passed, Sending, Success};
use crate::proxy::client::Client;
use crate::proxy::context::Scratch;
use crate::proxy::deadlines::Deadlines;
use crate::proxy::failure::Failure;
use crate::proxy::fault::{self, Fate};
use crate::proxy::gone::gone;
use crate::proxy::hedge::SecondTry;
use crate::proxy::judges::{Admitted, Judges};
use crate::proxy::progress::Progress;
use crate::proxy::replay::Replay;
use crate::proxy::reply::{answer, refuse};
use crate::proxy::switch;
use crate::proxy::trailers::Trailers;
use crate::proxy::way::{self, Addressee, Aim, Incoming};
use crate::ring::{self, Chunk, Gather, timer};
use crate::route::Tunnelled;
use crate::route::settings::Protocol;
use crate::telemetry::{AttemptOutcome, Description, Direction, ReasonLabel};
use crate::together::{First, first};
use crate::upstream::balancer::Probe;

/// Serves one request whose head is `head`, parsed into `scratch.request`.
pub(crate) async fn forward(client: &mut Client, scratch: &mut Scratch, mut head: Chunk) -> After {
    let context = Rc::clone(&client.context);
    let request = &scratch.request;
    let asked = Asked::of(request, &head);
    let mut body = BodyReader::of_request(request.body());
    let now = ring::now();
    let mut record = context.telemetry.begin(client.passage(now));
    record.method = asked.method.into();
    record.passage.count(Direction::Sent, head.len() as u64);

    // Where to, and under which identity and trace; the log tells of those that
    // are refused as well.
    let original = client.origin.original;
    let destination = (original, client.tunnel.as_deref());
    let found = way::find(&context, destination, request, &head, &mut scratch.host);
    let known = found.as_ref().ok().and_then(Option::as_ref);
    let identity = way::Identity::of(request, &head, known);
    if record.is_logged() {
        record.describe(Description {
            method: request.method_bytes(&head),
            authority: request.authority_bytes(&head),
            path: request.path(&head),
            request_id: identity.request_id(request, &head, known),
        });
    }
    let way = match found {
        Ok(Some(way)) => way,
        Ok(None) => {
            drop(head);
            let reply = LocalReply::new(Reason::NoRoute);
            return answer(client, record, asked, &body, reply).await;
        }
        Err(bad) => {
            drop(head);
            return refuse(client, record, bad, b"").await;
        }
    };
    way.target.count_use();
    client.member.asks(way.target.shared.id);
    let (upstream, shared) = (&way.target.upstream, &way.target.shared);
    let policies = &upstream.policies;
    let timeout = way.caller_timeout(request, &head);
    record.passage.upstream = shared.label;
    let addressed_to = client.addresses();
    if request.is_connect()
        && addressed_to == Addressee::Proxy
        && let Ok(Some(authority)) = request.authority(&head, String::new())
    {
        let key = way::request_key(&way.target, request, &head, client.origin.peer);
        let upstream = Arc::clone(&upstream.name);
        let tunnel = Tunnelled {
            authority,
            upstream,
        };
        drop(head);
        let connect = switch::connect(client, record, asked, (&way.target, key), tunnel);
        return Box::pin(connect).await;
    }
    if upstream.protocol == Protocol::Tcp {
        drop(head);
        let reply = LocalReply::new(Reason::NoRoute).with_detail(without_requests(&upstream.name));
        return answer(client, record, asked, &body, reply).await;
    }
    if way.is_circle() {
        drop(head);
        let reply = LocalReply::new(Reason::Loop).with_detail(IN_A_CIRCLE);
        return answer(client, record, asked, &body, reply).await;
    }

    // Limits, over all shards.
    let seen = way::seen_from(&context.pools, &way.target, client.origin.namespace);
    let reputation = seen.reputation();
    let in_flight = shared.requests.enter(policies.pool.max_requests);
    let (Some(_in_flight), Some(awaiting)) = (in_flight, way.target.enter_awaiting(reputation))
    else {
        drop(head);
        let reply = LocalReply::new(Reason::Overloaded);
        return answer(client, record, asked, &body, reply).await;
    };
    if let Some(settings) = &policies.rate_limit {
        let limit = way.target.rate_limit();
        let patience = policies.timeouts.request.unwrap_or(policies.timeouts.idle);
        let patience = timeout
            .limit()
            .map_or(patience, |limit| limit.min(patience));
        match limit.take(settings, patience, now) {
            Turn::Now => {}
            Turn::After(wait) => {
                head.detach();
                if let Some(ahead) = &mut client.ahead {
                    ahead.detach();
                }
                let gone = gone(&context, &client.stream, &client.origin);
                match first(timer::sleep(wait), gone).await {
                    First::Left(()) => {}
                    First::Right(()) => {
                        record.reason = Some(client.departure());
                        return After::Reset;
                    }
                }
            }
            Turn::Refused(wait) => {
                drop(head);
                let reply = LocalReply::new(Reason::RateLimited).retry_after(wait);
                return answer(client, record, asked, &body, reply).await;
            }
        }
    }
    context.pools.count_request(shared, now);

    // Faults on purpose, once for a request.
    let mut delayed = Duration::ZERO;
    if let Some(settings) = &policies.fault {
        let faults = fault::of_request(settings, request, &head, original);
        if faults.delay.is_some() {
            head.detach();
        }
        let limits = [policies.timeouts.request, timeout.limit()];
        let limit = limits.into_iter().flatten().min();
        let until = limit.map(|limit| now + limit);
        match fault::inject(client, faults, until, &mut record.passage).await {
            Fate::Serve => delayed = faults.delay.unwrap_or_default(),
            Fate::Abort(status) => {
                drop(head);
                let reply = LocalReply::new(Reason::FaultInjected).with_status(status);
                return answer(client, record, asked, &body, reply).await;
            }
            Fate::Reset => {
                record.reason = Some(ReasonLabel::FaultInjected);
                return After::Reset;
            }
            Fate::Left => {
                record.reason = Some(client.departure());
                return After::Reset;
            }
        }
    }

    // Whether the caller still waits, whether the upstream is left alone, and
    // which of its endpoints is next.
    let waits = |limit| now + limit > ring::now();
    if !timeout.limit().is_none_or(waits) {
        drop(head);
        let reply = LocalReply::new(Reason::RequestTimeout);
        return answer(client, record, asked, &body, reply).await;
    }
    let settings = &policies.circuit_breaker;
    let admitted = reputation
        .breaker
        .admit(settings, context.shard, ring::now());
    let Some(trial) = admitted else {
        drop(head);
        let reply = LocalReply::new(Reason::CircuitOpen);
        return answer(client, record, asked, &body, reply).await;
    };
    let key = way::request_key(&way.target, request, &head, client.origin.peer);
    let first_aim = Aim {
        namespace: client.origin.namespace,
        original,
        key,
        tried: &[],
        probe: Probe::beside(&trial),
        bound: client.bound.endpoint(shared, client.origin.namespace),
    };
    let Some(picked) = way::pick(&context.pools, &way.target, first_aim) else {
        drop(head);
        let reply = LocalReply::new(Reason::NoEndpoint);
        return answer(client, record, asked, &body, reply).await;
    };

    // What of the body is here already, and what is kept of it. Nothing of the
    // shared buffers is kept while a peer is waited for.
    let mut replay = match way::may_be_sent_twice(policies, request, &head) {
        true => Replay::up_to(policies.retry.body_limit),
        false => Replay::none(),
    };
    let presented_to = match client.bound.is_asked_by_proxy(shared) {
        true => Addressee::Upstream,
        false => Addressee::Proxy,
    };
    head.detach();
    let incoming = Incoming {
        request,
        head,
        identity,
        original,
        addressed_to,
        presented_to,
        trailers: RefCell::default(),
    };
    let mut outgoing = Gather::default();
    if !body.is_done()
        && let Some(chunk) = client.ahead.take()
    {
        let (way, incoming) = (&way, &incoming);
        match (Trailers { way, incoming }).take(&mut body, chunk) {
            Ok((mine, rest)) => {
                record.passage.count(Direction::Sent, mine.len() as u64);
                client.member.keeps_more(replay.add(&mine));
                outgoing.push(mine);
                client.ahead = rest;
            }
            Err(bad) => return refuse(client, record, bad, b"").await,
        }
    }
    if let Some(ahead) = &mut client.ahead {
        ahead.detach();
    }

    // One try after another, until there is an answer or no time, no budget and
    // no reason for one more; or until the caller has left.
    let progress = Progress::new(&record, Some(&client.member));
    progress.body_read.set(body.is_done());
    // An injected delay is not the upstream's.
    let deadlines = Deadlines::new(&policies.timeouts, body.is_done(), now + delayed);
    let left = timeout.limit().map(|limit| limit.saturating_sub(delayed));
    let deadlines = deadlines.bounded_by(left);
    let mut judges = Judges::new(picked, trial, reputation);
    let mut sending = Sending {
        context: &context,
        client: &client.stream,
        ahead: &mut client.ahead,
        bound: &mut client.bound,
        lane: Lane::Pool,
        namespace: client.origin.namespace,
        way: &way,
        incoming: &incoming,
        asked,
        body: &mut body,
        response: &mut scratch.response,
        record: &record,
        progress: &progress,
        outgoing: Some(outgoing),
        replay,
        deadlines: &deadlines,
        awaiting: Some(awaiting),
    };
    let answered = async {
        let mut tried_endpoints = Vec::new();
        let (tried, stopped) = loop {
            let may_retry = sending.tries() + 1 < policies.retry.attempts && judges.may_try_again();
            let may_hold = may_retry && sending.replay.is_whole();
            let (busy, counts) = ([judges.endpoint.endpoint], judges.counts());
            let beside = Aim {
                tried: &busy,
                ..first_aim
            };
            let tried = match sending.second_try(&judges, may_retry) {
                SecondTry::Never => sending.attempt(&mut judges, may_hold).await,
                SecondTry::Hedge(due) => {
                    let second =
                        || way::hedge(&context.pools, &way.target, reputation, (counts, beside));
                    sending.attempt_hedged(&mut judges, due, second).await
                }
                SecondTry::Silence(due) => {
                    let second = || way::elsewhere(&context.pools, &way.target, reputation, beside);
                    let may = (due, may_hold);
                    sending.attempt_beside(&mut judges, may, second).await
                }
            };

            // Whether there is a reason for one more, and a way to make it.
            let Some(cause) = attempt::cause(&tried, &way.target, &judges) else {
                break (tried, None);
            };
            let now = ring::now();
            let ended = Ended {
                cause,
                tries: sending.tries(),
                again: match may_retry && sending.can_send_again(&tried) {
                    true => Again::May,
                    false => Again::MayNot,
                },
                place: match tried_endpoints.is_empty() && judges.endpoint.has_alternatives() {
                    true => NextPlace::AnotherFirst,
                    false => NextPlace::Any,
                },
                retry_after: sending.retry_after(&tried),
                deadline: sending.deadlines.of_request(),
            };
            let refuses_at = |then| reputation.breaker.refuses_at(then);
            let next = policies
                .retry
                .next(&ended, refuses_at, now, clock::random_u64);
            let (wait, pays) = match next {
                Next::Stop => break (tried, None),
                Next::CircuitOpen => break (tried, Some(Reason::CircuitOpen)),
                Next::Again { wait, pays } => (wait, pays),
            };
            context.pools.report_requests(shared, now);
            let budget = &policies.retry.budget;
            if pays == Pays::Retry && !shared.retry_budget.withdraw(budget, now) {
                break (tried, Some(Reason::RetryBudget));
            }
            context.telemetry.cells.retry(shared.label, cause.into());
            if !wait.is_zero() {
                timer::sleep(wait).await;
            }

            // The upstream may have been given up meanwhile, or time has run out.
            if sending.deadlines.have_passed(ring::now()) {
                break (tried, None);
            }
            if judges.admit_again(settings, context.shard) == Admitted::No {
                break (tried, Some(Reason::CircuitOpen));
            }
            if let Ok(Success::Held(back)) = tried {
                sending.give_way(*back);
            }
            tried_endpoints.push(judges.endpoint.endpoint);
            let aim = Aim {
                tried: &tried_endpoints,
                ..first_aim
            };
            if let Some(next) = way::pick(&context.pools, &way.target, aim) {
                judges.endpoint = next;
            }
        };
        if let Some(score) = attempt::score(&tried) {
            judges.tell_breaker(score, ring::now());
        }
        let passed = match tried {
            Ok(Success::Passed(passed)) => Ok(passed),
            Ok(Success::Held(back)) => sending.pass(back).await,
            Err(failure) => Err(failure),
        };
        (passed, stopped)
    };
    let (passed, stopped) =
        match first(answered, gone(&context, &client.stream, &client.origin)).await {
            First::Left(answered) => answered,
            First::Right(()) => (Err(Failure::ClientGone), None),
        };

    drop(sending);
    // It is busy to the end, of a tunnel too.
    let _busy = judges.into_endpoint();
    let is_unanswered = progress.is_unanswered();
    let (open_tries, malformed) = (progress.open_tries.get(), progress.malformed.get());
    let has_begun = record.status.get() != 0;
    for _ in 0..open_tries {
        let cells = &context.telemetry.cells;
        cells.attempt(shared.label, AttemptOutcome::Cancelled);
    }
    match passed {
        Ok(Passed::Complete { keep_alive, ended }) => {
            record.reason = stopped.map(ReasonLabel::from);
            record.complete(ended);
            match (keep_alive, body.is_done()) {
                (true, true) => After::KeepAlive,
                (false, true) => After::Close,
                (_, false) => After::Linger,
            }
        }
        Ok(Passed::Switched(connection, upstream_first)) => {
            switch::tunnel(client, record, &way.target, *connection, upstream_first).await
        }
        // What has begun cannot be answered in another way.
        Err(Failure::Unanswered(unanswered)) if has_begun => {
            record.reason = Some(unanswered.reason.into());
            After::Reset
        }
        Err(Failure::BadRequest(bad)) if has_begun => {
            record.explain(bad.text());
            record.reason = Some(bad.reason().into());
            After::Reset
        }
        Err(Failure::Unanswered(unanswered)) => {
            let reply = match stopped {
                Some(Reason::RetryBudget) => {
                    LocalReply::new(Reason::RetryBudget).with_status_of(unanswered.reason)
                }
                stopped => LocalReply::new(stopped.unwrap_or(unanswered.reason)),
            };
            let reply = match unanswered.malformed {
                Some(bad) => reply.with_detail(bad.about(scratch.response.fields().blamed())),
                None => reply,
            };
            answer(client, record, asked, &body, reply).await
        }
        Err(Failure::BadRequest(bad)) => refuse(client, record, bad, b"").await,
        Err(Failure::Cut) => {
            if let Some(bad) = malformed {
                record.explain(bad.text());
            }
            record.reason = Some(ReasonLabel::UpstreamReset);
            After::Reset
        }
        Err(Failure::SlowResponse) => {
            record.explain(SLOW_RESPONSE);
            record.reason = Some(ReasonLabel::UpstreamReset);
            After::Reset
        }
        Err(Failure::SlowReader) => {
            record.explain(SLOW_READER);
            record.reason = Some(ReasonLabel::ClientGone);
            After::Reset
        }
        Err(Failure::ClientGone) if client.member.is_shed() && is_unanswered => {
            let reply = LocalReply::new(Reason::Overloaded).with_detail(SHED);
            answer(client, record, asked, &body, reply).await
        }
        Err(Failure::ClientGone) => {
            record.reason = Some(client.departure());
            After::Reset
        }
    }
}

/// What a caller is told whose request comes back and back.
const IN_A_CIRCLE: &str = "it has come through more proxies than max_hops: they go in a circle";
/// What a caller is told that was slow while others waited.
const SHED: &str = "given up: it was slow while others had to wait, or while memory was short";
/// What the log says of a response that was cut.
const SLOW_RESPONSE: &str = "the response came more slowly than timeouts.min_rate";
/// The same where the caller is at fault.
const SLOW_READER: &str = "the response was read more slowly than timeouts.min_rate";

/// What a caller is told who sends a request to an upstream of `protocol: tcp`.
fn without_requests(upstream: &str) -> String {
    format!(
        "the upstream {upstream} has protocol tcp, which has no requests: reach it by a tcp listener, or by a captured connection"
    )
}

#[cfg(test)]
mod tests;
