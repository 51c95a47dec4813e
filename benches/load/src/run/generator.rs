//! The loop of the generator.

use std::collections::VecDeque;
use std::time::Duration;

use rustix::io::Errno;

use super::announcement::Announcement;
use super::answer::{Afterwards, Answer, Progress};
use super::connection::{Connection, REST, Work};
use super::dialer::{Clock, Dialer};
use super::errors::ErrorKind;
use super::open_loop::{Moment, OpenLoop};
use super::tally::{Tally, Window};
use super::{Reuse, Settings};
use crate::failure::Failure;
use crate::poller::{ENDED, EVENTS, Event, EventFlags, Poller};
use crate::sockets::Connect;

/// Received bytes are only counted, so that one buffer does for all; it stays in
/// the core's own cache.
const RECEIVE_BYTES: usize = 64 << 10;

/// When the next request is sent.
pub enum Load {
    /// As soon as the connection's last one is answered.
    Closed,
    /// When it is due.
    Open(OpenLoop),
}

/// What came of a run.
pub struct Outcome {
    /// What was counted.
    pub tally: Tally,
    /// The state of the load at the end.
    pub load: Load,
    /// Requests that were due and not sent when the window ended.
    pub waiting_at_end: usize,
}

/// A load generator, with all that it needs to run.
pub struct Generator {
    dialer: Dialer,
    reuse: Reuse,
    request: Vec<u8>,
    poller: Poller,
    clock: Clock,
    window: Window,
    announcement: Announcement,
    load: Load,
    tally: Tally,
    connections: Vec<Connection>,
    /// Connections with a request, sent or not.
    busy: usize,
    /// Places whose connection failed, and until when they rest: in order.
    resting: VecDeque<(Moment, usize)>,
    /// What was waiting at the end of the window, once it has ended.
    waiting_at_end: Option<usize>,
    buffer: Vec<u8>,
}

impl Generator {
    /// Opens the connections that are to be kept, and starts the clock.
    pub fn start(settings: &Settings) -> Result<Self, Failure> {
        let poller = Poller::new().map_err(Failure::system("setting epoll up"))?;
        let dialer = settings.dialer()?;
        let answer = || Answer::new(settings.protocol, settings.size);
        let mut connections: Vec<_> = (0..settings.connections)
            .map(|_| Connection::new(answer()))
            .collect();
        if settings.reuse == Reuse::KeepAlive {
            dialer.open_all(&mut connections, &poller)?;
        }
        let window = Window::new(settings.warmup, settings.length);
        let (load, tally) = match settings.rate {
            None => (Load::Closed, Tally::of_ended(window)),
            Some(rate) => {
                let open = OpenLoop::new(rate.get(), window.end);
                (Load::Open(open), Tally::of_due(window))
            }
        };
        Ok(Self {
            dialer,
            reuse: settings.reuse,
            request: settings.request(),
            poller,
            clock: Clock::start(),
            window,
            announcement: Announcement::new(settings.announce, window),
            load,
            tally,
            connections,
            busy: 0,
            resting: VecDeque::new(),
            waiting_at_end: None,
            buffer: vec![0; RECEIVE_BYTES],
        })
    }

    /// Runs to the end, which comes after the window with the last answer, or
    /// at the deadline.
    pub fn run(mut self) -> Result<Outcome, Errno> {
        let mut ready = Vec::with_capacity(EVENTS);
        for slot in 0..self.connections.len() {
            self.release(slot, self.clock.now());
        }
        loop {
            self.start_due();
            self.wake_resting();
            let now = self.clock.now();
            self.announcement.make(self.window, now);
            if self.is_over(now) {
                return Ok(self.end(now));
            }
            self.poller.wait(&mut ready, Some(self.idle_time(now)))?;
            for event in &ready {
                self.handle(event);
                // A long turn must not delay what becomes due meanwhile.
                self.start_due();
            }
        }
    }

    fn is_over(&mut self, now: Moment) -> bool {
        if now < self.window.end {
            return false;
        }
        let waiting = match &mut self.load {
            Load::Closed => 0,
            Load::Open(open) => open.waiting(now),
        };
        self.waiting_at_end.get_or_insert(waiting);
        now >= self.window.deadline || self.busy == 0 && waiting == 0
    }

    /// For how long nothing has to be done but what events ask for.
    fn idle_time(&self, now: Moment) -> Duration {
        let boundary = match now < self.window.end {
            true => self.window.end,
            false => self.window.deadline,
        };
        let start = match &self.load {
            Load::Closed => None,
            Load::Open(open) => open.next_start(),
        };
        let rested = self.resting.front().map(|(until, _)| *until);
        let next = [start, rested, self.announcement.due()];
        let next = next.into_iter().flatten().min();
        next.unwrap_or(boundary).min(boundary).saturating_sub(now)
    }

    fn end(mut self, now: Moment) -> Outcome {
        for connection in &self.connections {
            let unfinished = match connection.work() {
                Work::Asking { .. } | Work::Connecting { due: Some(_), .. } => 1,
                _ => 0,
            };
            self.tally.abandoned(ErrorKind::Unfinished, unfinished);
        }
        if let Load::Open(open) = &mut self.load {
            let waiting = open.waiting(now) as u64;
            self.tally.abandoned(ErrorKind::Unfinished, waiting);
            self.tally.abandoned(ErrorKind::Overflow, open.overflowed());
        }
        Outcome {
            tally: self.tally,
            load: self.load,
            waiting_at_end: self.waiting_at_end.unwrap_or(0),
        }
    }

    /// Sends what is due, for as long as connections are free.
    fn start_due(&mut self) {
        while let Load::Open(open) = &mut self.load {
            let Some(start) = open.start(self.clock.now()) else {
                return;
            };
            self.tally.started(start.delay, start.due);
            self.begin(start.slot, start.due);
        }
    }

    fn wake_resting(&mut self) {
        let now = self.clock.now();
        while let Some((until, slot)) = self.resting.front().copied() {
            if until > now {
                return;
            }
            self.resting.pop_front();
            match self.reuse {
                Reuse::KeepAlive => self.reconnect(slot),
                Reuse::NewConnections => self.release(slot, now),
            }
        }
    }

    /// The place `slot` can take a request.
    fn release(&mut self, slot: usize, now: Moment) {
        match &mut self.load {
            Load::Open(open) => open.release(slot, now),
            Load::Closed if now < self.window.end => self.begin(slot, now),
            Load::Closed => {}
        }
    }

    /// Does the request that was due at `due`, on `slot`, which is free.
    fn begin(&mut self, slot: usize, due: Moment) {
        self.busy += 1;
        match self.reuse {
            Reuse::KeepAlive => self.ask(slot, due),
            Reuse::NewConnections => self.connect(slot, Some(due)),
        }
    }

    fn ask(&mut self, slot: usize, due: Moment) {
        if let Err(kind) = self.connections[slot].ask(due, &self.request) {
            self.fail(slot, kind, Some(due));
        }
    }

    fn reconnect(&mut self, slot: usize) {
        self.tally.reconnect();
        self.connect(slot, None);
    }

    fn connect(&mut self, slot: usize, due: Option<Moment>) {
        let connection = &mut self.connections[slot];
        let called = self
            .dialer
            .open(connection, slot, due, &self.poller, &self.clock);
        match called {
            Ok(call) => {
                let now = self.clock.now();
                self.tally.connect_call(call, due.unwrap_or(now), now);
                // The first event says the rest, where the call did not wait.
                if self.dialer.connect == Connect::Blocking {
                    self.end_connect(slot);
                }
            }
            Err(_) => self.fail(slot, ErrorKind::Connect, due),
        }
    }

    fn handle(&mut self, event: &Event) {
        let (slot, flags) = (event.data.u64() as usize, event.flags);
        let ended = flags.intersects(ENDED);
        match self.connections[slot].work() {
            Work::Closed => {}
            Work::Connecting { .. } if ended || flags.contains(EventFlags::OUT) => {
                self.end_connect(slot);
            }
            Work::Connecting { .. } => {}
            Work::Idle => self.look_at_idle(slot),
            Work::Asking { due } => self.go_on(slot, due, ended),
        }
    }

    fn end_connect(&mut self, slot: usize) {
        let Work::Connecting { since, due } = self.connections[slot].work() else {
            return;
        };
        let now = self.clock.now();
        if self.connections[slot].connect_result().is_err() {
            return self.fail(slot, ErrorKind::Connect, due);
        }
        self.tally.established(now - since, due.unwrap_or(now), now);
        match due {
            Some(due) => self.ask(slot, due),
            None => self.release(slot, now),
        }
    }

    fn look_at_idle(&mut self, slot: usize) {
        match self.connections[slot].check_idle() {
            Ok(Afterwards::Reusable) => {}
            Ok(Afterwards::Closing) => {
                self.withdraw(slot);
                self.connections[slot].close();
                self.reconnect(slot);
            }
            Err(kind) => {
                let now = self.clock.now();
                self.tally.failed(kind, now, now);
                self.withdraw(slot);
                self.connections[slot].close();
                self.resting.push_back((now + REST, slot));
            }
        }
    }

    fn withdraw(&mut self, slot: usize) {
        if let Load::Open(open) = &mut self.load {
            open.withdraw(slot);
        }
    }

    /// Sends the rest of the request and takes what came of the answer.
    fn go_on(&mut self, slot: usize, due: Moment, ended: bool) {
        let connection = &mut self.connections[slot];
        let progress = connection
            .send(&self.request)
            .and_then(|()| connection.receive(&mut self.buffer, ended));
        match progress {
            Ok(Progress::Partial) => {}
            Ok(Progress::Whole(afterwards)) => self.answered(slot, due, afterwards),
            Err(kind) => self.fail(slot, kind, Some(due)),
        }
    }

    fn answered(&mut self, slot: usize, due: Moment, afterwards: Afterwards) {
        let now = self.clock.now();
        self.tally.answered(due, now);
        self.busy -= 1;
        let connection = &mut self.connections[slot];
        match (self.reuse, afterwards) {
            (Reuse::KeepAlive, Afterwards::Reusable) => {
                connection.answered();
                self.release(slot, now);
            }
            (Reuse::KeepAlive, Afterwards::Closing) => {
                connection.close();
                self.reconnect(slot);
            }
            (Reuse::NewConnections, _) => {
                connection.close();
                self.release(slot, self.clock.now());
            }
        }
    }

    /// The connection of `slot` failed, with the request that was due at `due`
    /// where it had one.
    fn fail(&mut self, slot: usize, kind: ErrorKind, due: Option<Moment>) {
        let now = self.clock.now();
        self.tally.failed(kind, due.unwrap_or(now), now);
        if due.is_some() {
            self.busy -= 1;
        }
        self.connections[slot].close();
        self.resting.push_back((now + REST, slot));
    }
}
