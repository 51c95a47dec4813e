//! A caller: one request after the other over a kept connection, of kinds that
//! the seed draws, each judged by what it may get.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::answer::{Answer, Line};
use crate::endpoint::content;
use crate::gate::{Found, Gate};
use crate::ledger::{Fate, Ledger};
use crate::random::Random;
use crate::schedule::Ending;

/// Between two requests of a caller.
const PAUSE_MAX: Duration = Duration::from_millis(25);

/// Of a hundred requests these begin on a new connection.
const NEW_CONNECTIONS: u64 = 20;

/// Of a hundred POSTs without a key these have a body that is too large to be
/// kept for another try.
const LARGE_BODIES: u64 = 30;

/// More than `retry.body_limit`.
const LARGE: usize = 150_000;

/// After a connect that was refused.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To the upstream that has endpoints enough: answered in any case.
    Get,
    /// The same, as it may come twice.
    PostWithKey,
    /// To that upstream, at most once; it may fail.
    Post,
    /// To the upstream with one endpoint; it may fail.
    Single,
    /// Its caller leaves before the answer.
    Leave,
}

/// One caller.
pub struct Caller {
    /// Where the proxy listens.
    pub proxy: SocketAddr,
    /// The books.
    pub ledger: Arc<Ledger>,
    /// Its draws.
    pub random: Random,
    /// Its requests are numbered from here.
    pub number: u64,
    /// Kept from one request to the next.
    pub line: Option<Line>,
}

impl Caller {
    /// Calls until the gate is closed.
    pub fn run(mut self, gate: &Gate) {
        const KINDS: [Kind; 10] = [
            Kind::Get,
            Kind::Get,
            Kind::Get,
            Kind::Get,
            Kind::Get,
            Kind::Post,
            Kind::Post,
            Kind::PostWithKey,
            Kind::Single,
            Kind::Leave,
        ];
        let mut pauses_seen = 0;
        loop {
            match gate.enter() {
                Found::Closed => return,
                Found::Paused => {
                    self.line = None;
                    gate.wait();
                    continue;
                }
                Found::Open(pauses) if pauses == pauses_seen => {}
                Found::Open(pauses) => {
                    pauses_seen = pauses;
                    self.line = None;
                }
            }
            let kind = self.random.one_of(&KINDS);
            if self.random.percent(NEW_CONNECTIONS) {
                self.line = None;
            }
            self.call(kind, host_of(kind));
            gate.leave();
            std::thread::sleep(self.random.between(Duration::ZERO, PAUSE_MAX));
        }
    }

    /// Makes one request to the upstream of this host and writes down what
    /// became of it.
    pub fn call(&mut self, kind: Kind, host: &str) {
        self.number += 1;
        let began = Instant::now();
        let small = "amount=1".to_owned();
        let (method, key, body) = match kind {
            Kind::Get | Kind::Single | Kind::Leave => ("GET", "", String::new()),
            Kind::Post if self.random.percent(LARGE_BODIES) => ("POST", "", "x".repeat(LARGE)),
            Kind::Post => ("POST", "", small),
            Kind::PostWithKey => ("POST", "idempotency-key: yes\r\n", small),
        };
        let target = format!("/{host}/{}", self.number);
        let length = match body.len() {
            0 => String::new(),
            length => format!("content-length: {length}\r\n"),
        };
        let request =
            format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n{key}{length}\r\n{body}");
        let kept = match self.line {
            Some(_) => Kept::Yes,
            None => Kept::No,
        };
        let line = match self.line.take().map_or_else(|| Line::to(self.proxy), Ok) {
            Ok(line) => line,
            // Nothing was sent.
            Err(_) if self.ledger.ended_since(began).is_some() => {
                return std::thread::sleep(REFUSED_PAUSE);
            }
            Err(error) => return self.ledger.broke(format!("a connect failed: {error}")),
        };
        if kind == Kind::Leave {
            return self.leave(line, &request);
        }
        let (answer, line) = line.ask(request.as_bytes());
        self.line = line;
        match self.judge((kind, kept), &answer, &target, began) {
            Some(fate) => self.ledger.ended(fate),
            None => {
                let took = began.elapsed().as_secs_f64();
                let shown = shown(&answer);
                self.ledger
                    .broke(format!("{kind:?} {target} got {shown} after {took:.3} s"));
            }
        }
    }

    fn leave(&mut self, mut line: Line, request: &str) {
        // A failed one was never there, or is lost like the rest.
        let _ = line.send(request.as_bytes());
        std::thread::sleep(self.random.between(Duration::ZERO, PAUSE_MAX));
        self.ledger.ended(Fate::Left);
    }

    /// `None`: it must not be.
    fn judge(
        &self,
        (kind, kept): (Kind, Kept),
        answer: &Answer,
        target: &str,
        began: Instant,
    ) -> Option<Fate> {
        let promised = matches!(kind, Kind::Get | Kind::PostWithKey);
        let visible = self.ledger.visible_since(began);
        let ended = self.ledger.ended_since(began);
        match answer {
            Answer::Whole {
                status: 200, body, ..
            } => (*body == content(target).into_bytes()).then_some(Fate::Well),
            Answer::Whole { reason, .. } => {
                let excused = !promised
                    || visible.protocol_error && reason == "protocol-error"
                    || ended.is_some() && reason == "draining";
                excused.then_some(Fate::Excused)
            }
            Answer::Cut { .. } => {
                let killed = ended == Some(Ending::Killed);
                (!promised || visible.cut || killed).then_some(Fate::Excused)
            }
            Answer::None(_) => match (ended?, kept) {
                (Ending::Killed, _) => Some(Fate::Lost),
                // A kept connection may be closed while a request is on its way.
                (Ending::Orderly, Kept::Yes) => Some(Fate::Lost),
                // A new one should be served, or never be there. Few are neither.
                (Ending::Orderly, Kept::No) => Some(Fate::TurnedAway),
            },
            Answer::Silent => None,
        }
    }
}

/// Whether a connection had carried a request before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Yes,
    No,
}

/// The name of the upstream of a kind of request.
pub fn host_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Single => "single.test",
        _ => "web.test",
    }
}

fn shown(answer: &Answer) -> String {
    match answer {
        Answer::Whole {
            status,
            reason,
            body,
        } => format!("{status} {reason:?} with {} bytes", body.len()),
        Answer::Cut { status } => format!("{status} and then an end before its time"),
        Answer::None(why) => format!("no answer ({why})"),
        Answer::Silent => "nothing at all".into(),
    }
}
