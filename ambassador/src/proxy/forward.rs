//! One request, from its head to its end: the order of the filters, written
//! once, as straight-line code.

use std::rc::Rc;

use crate::clock;
use crate::http::{BodyReader, LocalReply, Reason};
use crate::policy::rate_limit::Turn;
use crate::proxy::attempt::{self, Lane, Passed, Sending, Success};
use crate::proxy::client::Client;
use crate::proxy::context::Scratch;
use crate::proxy::deadlines::Deadlines;
use crate::proxy::exchange::{self, Asked};
use crate::proxy::failure::Failure;
use crate::proxy::replay::Replay;
use crate::proxy::reply::{answer, refuse};
use crate::proxy::switch;
use crate::proxy::way::{self, Addressee, Aim};
use crate::ring::{self, Chunk, Gather, timer};
use crate::route::settings::Protocol;
use crate::telemetry::{Description, Direction};
use crate::together::{First, first};

/// What becomes of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It may carry another request.
    KeepAlive,
    /// It is closed.
    Close,
    /// It is closed once the unread rest of the request has been drained.
    Linger,
    /// It is reset: the response was cut, or there is none to give.
    Reset,
}

/// Serves one request whose head is `head`, parsed into `scratch.request`.
pub async fn forward(client: &mut Client, scratch: &mut Scratch, mut head: Chunk) -> After {
    let context = Rc::clone(&client.context);
    let request = &scratch.request;
    let asked = Asked::of(request, &head);
    let mut body = BodyReader::of_request(request.body());
    let now = ring::now();
    let mut record = context.telemetry.begin(client.passage(now));
    record.method = asked.method.as_str();
    record.passage.bytes_in.set(head.len() as u64);

    // Identity and trace; the log tells of those that are refused as well.
    let identity = way::Identity::of(request, &head);
    if record.is_logged() {
        record.describe(Description {
            method: request.method_bytes(&head),
            authority: request.field(&head, "host").unwrap_or_default(),
            path: request.path(&head),
            request_id: identity.request_id(request, &head),
        });
    }

    // Where to.
    let original = client.origin.original;
    let way = match way::find(&context, original, request, &head, &mut scratch.host) {
        Ok(Some(way)) => way,
        Ok(None) => {
            drop(head);
            let reply = LocalReply::new(Reason::NoRoute);
            return answer(client, record, asked, &body, reply).await;
        }
        Err(bad) => {
            drop(head);
            return refuse(client, record, bad).await;
        }
    };
    way.target.count_use();
    let (upstream, shared) = (&way.target.upstream, &way.target.shared);
    let policies = &upstream.policies;
    let timeout = way.caller_timeout(request, &head);
    record.passage.upstream = shared.label;
    if upstream.protocol == Protocol::Tcp {
        drop(head);
        let reply = LocalReply::new(Reason::NoRoute).with_detail(without_requests(&upstream.name));
        return answer(client, record, asked, &body, reply).await;
    }

    // Limits, over all shards.
    let in_flight = shared.requests.enter(policies.pool.max_requests);
    let (Some(_in_flight), Some(awaiting)) = (in_flight, way.target.enter_awaiting()) else {
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
                match first(timer::sleep(wait), client.stream.broken()).await {
                    First::Left(()) => {}
                    First::Right(()) => return After::Reset,
                }
            }
            Turn::Refused(wait) => {
                drop(head);
                let reply = LocalReply::new(Reason::RateLimited).retry_after(wait);
                return answer(client, record, asked, &body, reply).await;
            }
        }
    }
    context
        .pools
        .count_request(shared, way.target.pool_policies(), now);

    // Whether the caller still waits, whether the upstream is left alone, and
    // which of its endpoints is next.
    let waits = |limit| now + limit > ring::now();
    if !timeout.limit().is_none_or(waits) {
        drop(head);
        let reply = LocalReply::new(Reason::RequestTimeout);
        return answer(client, record, asked, &body, reply).await;
    }
    let admit = || {
        let settings = &policies.circuit_breaker;
        shared.breaker.admit(settings, context.shard, ring::now())
    };
    let Some(mut trial) = admit() else {
        drop(head);
        let reply = LocalReply::new(Reason::CircuitOpen);
        return answer(client, record, asked, &body, reply).await;
    };
    let key = way::request_key(&way.target, request, &head, client.origin.peer);
    let first_aim = Aim {
        original,
        key,
        tried: &[],
        bound: client.bound.endpoint(shared, client.origin.namespace),
    };
    let Some(mut picked) = way::pick(&context.pools, &way.target, first_aim) else {
        drop(head);
        let reply = LocalReply::new(Reason::NoEndpoint);
        return answer(client, record, asked, &body, reply).await;
    };

    // The head as the upstream gets it.
    if request.is_connect() && original.is_none() {
        drop((head, awaiting));
        return switch::connect(client, record, asked, &way.target, (picked, trial)).await;
    }
    let presented_to = match client.bound.is_asked_by_proxy(shared) {
        true => Addressee::Upstream,
        false => Addressee::Proxy,
    };
    let outgoing = way.encode(
        request,
        &head,
        picked.endpoint,
        &identity,
        original,
        presented_to,
    );
    let head_bytes = outgoing.len();
    let mut outgoing = Gather::from(outgoing);
    let repeatable = way::may_be_sent_twice(&policies.retry, request, &head);
    drop(head);

    // What of the body is here already. Nothing of the shared buffers is kept
    // while a peer is waited for.
    let mut body_bytes = 0;
    if !body.is_done()
        && let Some(chunk) = client.ahead.take()
    {
        match exchange::take_body(&mut body, chunk) {
            Ok((mine, rest)) => {
                body_bytes = mine.len() as u64;
                record.passage.count(Direction::Sent, body_bytes);
                outgoing.push(mine);
                client.ahead = rest;
            }
            Err(bad) => return refuse(client, record, bad).await,
        }
    }
    if let Some(ahead) = &mut client.ahead {
        ahead.detach();
    }

    // One try after another, until there is an answer or no time, no budget and
    // no reason for one more.
    let replay = match repeatable {
        true => Replay::of(&outgoing, body_bytes, policies.retry.body_limit),
        false => Replay::none(),
    };
    let deadlines =
        Deadlines::new(&policies.timeouts, body.is_done(), now).bounded_by(timeout, head_bytes);
    let mut sending = Sending {
        deadlines: &deadlines,
        awaiting: Some(awaiting),
        client,
        target: &way.target,
        asked,
        body: &mut body,
        response: &mut scratch.response,
        record: &mut record,
        outgoing: Some(outgoing),
        replay,
        lane: Lane::Pool,
    };
    let mut tried_endpoints = Vec::new();
    let (tried, stopped) = loop {
        let may_retry = sending.record.attempts + 1 < policies.retry.attempts && !trial.is_probe();
        let may_hold = may_retry && sending.replay.is_whole();
        let slow_at = match sending.may_be_hedged() && !trial.is_probe() {
            true => context.pools.slow_at(shared, &policies.hedge, ring::now()),
            false => None,
        };
        let tried = match slow_at {
            None => sending.attempt(&mut picked, trial, may_hold).await,
            Some(due) => {
                let busy = [picked.endpoint];
                let second = || {
                    let aim = Aim {
                        tried: &busy,
                        ..first_aim
                    };
                    way::second(&context.pools, &way.target, aim)
                };
                let hedged = sending.attempt_hedged(&mut picked, trial, due, second);
                hedged.await
            }
        };

        // Whether there is a reason for one more, and a way to make it.
        let now = ring::now();
        let cause = attempt::cause(&tried, &policies.retry);
        let Some(cause) = cause.filter(|_| may_retry && sending.can_send_again(&tried)) else {
            break (tried, None);
        };
        let asked_wait = sending.retry_after(&tried);
        let tries = sending.record.attempts;
        let wait = policies.retry.wait(tries, asked_wait, clock::random_u64());
        let deadline = sending.deadlines.of_request();
        if deadline.is_some_and(|deadline| now + wait >= deadline) {
            break (tried, None);
        }
        if shared.breaker.refuses_at(now + wait) {
            break (tried, Some(Reason::CircuitOpen));
        }
        context.pools.report_requests(shared, now);
        if !shared.retry_budget.withdraw(&policies.retry.budget, now) {
            break (tried, Some(Reason::RetryBudget));
        }
        context.telemetry.cells.retry(shared.label, cause.as_str());
        match first(timer::sleep(wait), sending.client.stream.broken()).await {
            First::Left(()) => {}
            First::Right(()) => break (Err(Failure::ClientGone), None),
        }

        // The caller or the upstream may have been given up meanwhile.
        if sending.deadlines.have_passed(ring::now()) {
            break (tried, None);
        }
        trial = match admit() {
            Some(trial) => trial,
            None => break (tried, Some(Reason::CircuitOpen)),
        };
        if let Ok(Success::Held(back)) = tried {
            sending.give_way(back);
        }
        tried_endpoints.push(picked.endpoint);
        let aim = Aim {
            tried: &tried_endpoints,
            ..first_aim
        };
        if let Some(next) = way::pick(&context.pools, &way.target, aim) {
            picked = next;
        }
    };

    // What the client gets.
    let tried = match tried {
        Ok(Success::Passed(passed)) => Ok(passed),
        Ok(Success::Held(back)) => {
            sending.record.reason = stopped.map(Reason::as_str);
            sending.pass(back).await
        }
        Err(failure) => Err(failure),
    };
    drop(sending);
    match tried {
        Ok(Passed::Complete { keep_alive, ended }) => {
            record.complete(ended);
            match (keep_alive, body.is_done()) {
                (true, true) => After::KeepAlive,
                (false, true) => After::Close,
                (_, false) => After::Linger,
            }
        }
        Ok(Passed::Switched(connection, upstream_first)) => {
            switch::tunnel(client, record, &way.target, connection, upstream_first).await
        }
        Err(Failure::Unanswered(unanswered)) => {
            let reply = match stopped {
                Some(Reason::RetryBudget) => {
                    LocalReply::new(Reason::RetryBudget).with_status_of(unanswered.reason)
                }
                stopped => LocalReply::new(stopped.unwrap_or(unanswered.reason)),
            };
            answer(client, record, asked, &body, reply).await
        }
        Err(Failure::BadRequest(bad)) => refuse(client, record, bad).await,
        Err(Failure::Cut) => {
            record.reason = Some(Reason::UpstreamReset.as_str());
            After::Reset
        }
        Err(Failure::ClientGone) => After::Reset,
    }
}

/// What a caller is told who sends a request to an upstream of `protocol: tcp`.
fn without_requests(upstream: &str) -> String {
    format!(
        "the upstream {upstream} has protocol tcp, which has no requests: reach it by a tcp listener, or by a captured connection"
    )
}

#[cfg(test)]
mod tests;
