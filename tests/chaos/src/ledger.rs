//! The books: what was sent and seen, and what must not be.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ambassador_tests::server::Request;

use crate::endpoint;
use crate::fault::Visible;
use crate::schedule::Ending;

/// Shared by callers, endpoints and the run.
pub struct Ledger {
    started: Instant,
    now: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    sent: Sent,
    /// How often each POST without a key arrived anywhere.
    posts: HashMap<u64, u32>,
    /// What faults may show now, one entry for each endpoint in trouble.
    visible: Vec<(usize, Visible)>,
    /// When the last trouble that shows ended.
    visible_until: Option<(Instant, Visible)>,
    /// How the proxy is being ended, from then until it serves again.
    restarting: Option<Ending>,
    /// The last restart that is over.
    restarted: Option<(Instant, Ending)>,
    broken: Option<Broken>,
    totals: Totals,
}

/// Requests of this life of the proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// They had an answer, or a part of one.
    pub surely: u64,
    /// Their caller left, or had no answer: the proxy may not have seen them.
    pub perhaps: u64,
}

/// Counts of the whole run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// Answered as they should be.
    pub well: u64,
    /// Answered otherwise, where that may be.
    pub excused: u64,
    /// Left by their callers.
    pub left: u64,
    /// Without an answer, as the proxy was ended.
    pub lost: u64,
    /// The same, on a new connection and after SIGTERM.
    pub turned_away: u64,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// As it should be.
    Well,
    /// Not so well, where that may be.
    Excused,
    /// Its caller left.
    Left,
    /// There was no answer, and the proxy was being ended.
    Lost,
    /// The same, on a new connection and after SIGTERM.
    TurnedAway,
}

/// An invariant that did not hold, and when.
#[derive(Debug, Clone)]
pub struct Broken {
    /// Seconds from the start.
    pub at: f64,
    /// Which, and what was seen.
    pub what: String,
}

impl Ledger {
    /// Empty books.
    pub fn new() -> Ledger {
        Ledger {
            started: Instant::now(),
            now: Mutex::default(),
        }
    }

    /// A panic under the lock leaves nothing half changed.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An endpoint has read the head of a request.
    pub fn arrived(&self, request: &Request) {
        let Some(number) = endpoint::once_only(request) else {
            return;
        };
        let times = {
            let mut books = self.books();
            let times = books.posts.entry(number).or_default();
            *times += 1;
            *times
        };
        if times > 1 {
            let target = &request.target;
            self.broke(format!("POST {target} without a key arrived {times} times"));
        }
    }

    /// A request has come to its end.
    pub fn ended(&self, fate: Fate) {
        let mut books = self.books();
        let Books { sent, totals, .. } = &mut *books;
        let (sent, total) = match fate {
            Fate::Well => (&mut sent.surely, &mut totals.well),
            Fate::Excused => (&mut sent.surely, &mut totals.excused),
            Fate::Left => (&mut sent.perhaps, &mut totals.left),
            Fate::Lost => (&mut sent.perhaps, &mut totals.lost),
            Fate::TurnedAway => (&mut sent.perhaps, &mut totals.turned_away),
        };
        *sent += 1;
        *total += 1;
    }

    /// Requests of this life.
    pub fn sent(&self) -> Sent {
        self.books().sent
    }

    /// A new life begins.
    pub fn forget_sent(&self) {
        self.books().sent = Sent::default();
    }

    /// Counts of the run.
    pub fn totals(&self) -> Totals {
        self.books().totals
    }

    /// An endpoint begins to show this.
    pub fn begin(&self, endpoint: usize, visible: Visible) {
        self.books().visible.push((endpoint, visible));
    }

    /// It is well again; its last victims may still be on their way.
    pub fn end(&self, endpoint: usize) {
        let mut books = self.books();
        let was = books.visible.iter().find(|(of, _)| *of == endpoint);
        let was = was.map(|(_, visible)| *visible).unwrap_or_default();
        books.visible.retain(|(of, _)| *of != endpoint);
        if was != Visible::default() {
            books.visible_until = Some((Instant::now(), was));
        }
    }

    /// What a request that began then may show.
    pub fn visible_since(&self, began: Instant) -> Visible {
        let books = self.books();
        let now = books.visible.iter().map(|(_, visible)| *visible);
        let before = books.visible_until.filter(|(until, _)| *until >= began);
        let all = now.chain(before.map(|(_, visible)| visible));
        all.fold(Visible::default(), |sum, one| Visible {
            cut: sum.cut || one.cut,
            protocol_error: sum.protocol_error || one.protocol_error,
        })
    }

    /// The proxy is ended from here on.
    pub fn restart_begins(&self, ending: Ending) {
        self.books().restarting = Some(ending);
    }

    /// It serves again.
    pub fn restart_ends(&self) {
        let mut books = self.books();
        let ending = books.restarting.take();
        books.restarted = ending.map(|ending| (Instant::now(), ending));
    }

    /// How the proxy was ended while a request was on its way that began then;
    /// `None`: it was not.
    pub fn ended_since(&self, began: Instant) -> Option<Ending> {
        let books = self.books();
        let before = books.restarted.filter(|(served, _)| *served >= began);
        books.restarting.or(before.map(|(_, ending)| ending))
    }

    /// An invariant does not hold; the first one is kept.
    pub fn broke(&self, what: String) {
        let at = self.started.elapsed().as_secs_f64();
        self.books().broken.get_or_insert(Broken { at, what });
    }

    /// What broke.
    pub fn broken(&self) -> Option<Broken> {
        self.books().broken.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str, field: Option<(&str, &str)>) -> Request {
        let fields = field.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Request {
            method: method.into(),
            target: target.into(),
            head: String::new(),
            fields: fields.into_iter().collect(),
            body: Vec::new(),
            trailers: Vec::new(),
        }
    }

    #[test]
    fn a_post_without_a_key_may_arrive_once() {
        let ledger = Ledger::new();
        for _ in 0..2 {
            ledger.arrived(&request("GET", "/web.test/1", None));
            let key = Some(("Idempotency-Key", "yes"));
            ledger.arrived(&request("POST", "/web.test/2", key));
        }
        ledger.arrived(&request("POST", "/web.test/3", None));
        ledger.arrived(&request("POST", "/web.test/4", None));
        assert!(ledger.broken().is_none());
        ledger.arrived(&request("POST", "/web.test/3", None));
        let broken = ledger.broken().expect("it came twice");
        assert!(broken.what.contains("/web.test/3"), "{broken:?}");
        // The first one is told of.
        ledger.broke("another".into());
        assert_eq!(ledger.broken().expect("as before").what, broken.what);
    }

    #[test]
    fn what_shows_is_excused_while_it_lasts_and_for_those_on_their_way() {
        let (ledger, cut) = (
            Ledger::new(),
            Visible {
                cut: true,
                protocol_error: false,
            },
        );
        let before = Instant::now();
        assert_eq!(ledger.visible_since(before), Visible::default());
        ledger.begin(1, cut);
        ledger.begin(2, Visible::default());
        assert_eq!(ledger.visible_since(Instant::now()), cut);
        ledger.end(2);
        ledger.end(1);
        assert_eq!(ledger.visible_since(before), cut);
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert_eq!(ledger.visible_since(Instant::now()), Visible::default());
    }

    #[test]
    fn a_restart_excuses_those_on_their_way() {
        let ledger = Ledger::new();
        let before = Instant::now();
        assert_eq!(ledger.ended_since(before), None);
        ledger.restart_begins(Ending::Killed);
        assert_eq!(ledger.ended_since(Instant::now()), Some(Ending::Killed));
        ledger.restart_ends();
        assert_eq!(ledger.ended_since(before), Some(Ending::Killed));
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert_eq!(ledger.ended_since(Instant::now()), None);
    }
}
