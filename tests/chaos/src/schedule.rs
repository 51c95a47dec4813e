//! What happens when: made from the seed alone, before anything runs.
//!
//! A run is a row of acts. In each, endpoints fail and the configuration is
//! reloaded under load; then the load pauses and the books are checked; then it
//! goes on, and the proxy is ended under it.

use std::time::Duration;

use crate::fault::Trouble;
use crate::random::Random;

/// Endpoints of the upstream of which callers must see no failure.
pub const ENDPOINTS: usize = 5;

/// Of them, these may be in trouble at a time: two tries at endpoints that fail
/// leave one of three, and two of five may be ejected.
pub const TROUBLED_MAX: usize = 2;

/// The endpoint of the upstream that has no other.
pub const SINGLE: usize = ENDPOINTS;

/// From the end of a trouble to the next start of one: longer than a request
/// takes with all its tries, so that none meets three troubled endpoints.
const GAP: Duration = Duration::from_millis(2_500);

/// How long the load goes on in an act.
const ACT: Duration = Duration::from_secs(11);

/// A run at least this long ends with an act of a quarter of it: what grows
/// slowly has time to be seen.
const LONG_RUN: Duration = Duration::from_secs(240);

/// What an act takes besides: the check of the books and the restart.
const BETWEEN: Duration = Duration::from_secs(4);

/// Something that is done at its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// An endpoint begins to fail.
    Begin(usize, Trouble),
    /// It is well again.
    End(usize),
    /// The configuration file is replaced.
    Reload(Reload),
}

/// What the file becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// Other numbers.
    Good,
    /// An upstream of a name that was never there, which is then called.
    NewName,
    /// What is no YAML.
    NoYaml,
    /// A key that does not exist.
    WrongKey,
}

/// How the proxy is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// SIGTERM.
    Orderly,
    /// SIGKILL.
    Killed,
}

/// One life of the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// Events with their times from its start, in order.
    pub events: Vec<(Duration, Event)>,
    /// When the load pauses.
    pub until: Duration,
    /// How it ends.
    pub ending: Ending,
}

/// The acts that fill this time.
pub fn acts(seed: u64, time: Duration) -> Vec<Act> {
    let long = (time >= LONG_RUN).then(|| time / 4);
    let short = time - long.unwrap_or_default();
    let count = (short.as_millis() / (ACT + BETWEEN).as_millis()).max(1);
    let mut random = Random::new(seed, 0);
    let mut acts: Vec<Act> = (0..count).map(|_| act(&mut random, ACT)).collect();
    acts.extend(long.map(|long| act(&mut random, long)));
    // Each ending is there, and the last one can be accounted for.
    let last = acts.len() - 1;
    acts[last].ending = Ending::Orderly;
    if last > 0 {
        acts[0].ending = Ending::Killed;
    }
    acts
}

fn act(random: &mut Random, until: Duration) -> Act {
    let mut events = Vec::new();
    let mut endpoints: Vec<usize> = (0..ENDPOINTS).collect();
    // In each slot one or two endpoints are in trouble, with a gap behind it.
    let mut at = random.between(Duration::from_millis(500), Duration::from_secs(1));
    while at + Duration::from_secs(3) < until {
        let end = at + random.between(Duration::from_secs(1), Duration::from_secs(3));
        for slot in 0..=random.below(TROUBLED_MAX as u64) as usize {
            let other = slot + random.below((ENDPOINTS - slot) as u64) as usize;
            endpoints.swap(slot, other);
            events.push((at, Event::Begin(endpoints[slot], Trouble::draw(random))));
            events.push((end, Event::End(endpoints[slot])));
        }
        at = end + GAP;
    }
    let single = random.between(Duration::from_secs(1), Duration::from_secs(3));
    let end = single + random.between(Duration::from_secs(1), Duration::from_secs(3));
    events.push((single, Event::Begin(SINGLE, Trouble::draw(random))));
    events.push((end, Event::End(SINGLE)));
    let mut at = random.between(Duration::from_millis(500), Duration::from_secs(2));
    while at + Duration::from_secs(1) < until {
        let reload = random.one_of(&[
            Reload::Good,
            Reload::NewName,
            Reload::NoYaml,
            Reload::WrongKey,
        ]);
        events.push((at, Event::Reload(reload)));
        at += random.between(Duration::from_secs(2), Duration::from_secs(4));
    }
    events.sort_by_key(|(at, _)| *at);
    Act {
        events,
        until,
        ending: random.one_of(&[Ending::Orderly, Ending::Killed]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_seed_alone_makes_it() {
        let minute = Duration::from_secs(60);
        assert_eq!(acts(1, minute), acts(1, minute));
        assert_ne!(acts(1, minute), acts(2, minute));
        assert_eq!(acts(1, minute).len(), 4);
        let ten = acts(1, 10 * minute);
        assert_eq!((ten.len(), ten[30].until), (31, 10 * minute / 4));
        assert!(ten[30].events.len() > 100, "{}", ten[30].events.len());
        assert_eq!(acts(1, Duration::ZERO).len(), 1);
    }

    #[test]
    fn most_endpoints_are_well_at_any_time_and_all_at_the_end() {
        for seed in 0..200 {
            for act in acts(seed, Duration::from_secs(120)) {
                let mut troubled = HashSet::new();
                let mut ended = None;
                for (at, event) in &act.events {
                    assert!(*at < act.until, "{seed}: {act:?}");
                    match event {
                        Event::Begin(SINGLE, _) | Event::End(SINGLE) | Event::Reload(_) => {}
                        Event::Begin(endpoint, _) => {
                            assert!(troubled.insert(*endpoint), "{seed}: {act:?}");
                            let well = ended.is_none_or(|ended| *at >= ended + GAP);
                            assert!(well, "{seed}: {act:?}");
                        }
                        Event::End(endpoint) => {
                            assert!(troubled.remove(endpoint), "{seed}: {act:?}");
                            ended = Some(*at);
                        }
                    }
                    assert!(troubled.len() <= TROUBLED_MAX, "{seed}: {act:?}");
                }
                assert!(troubled.is_empty(), "{seed}: {act:?}");
            }
        }
    }

    #[test]
    fn every_kind_of_event_is_there() {
        let acts = acts(7, Duration::from_secs(600));
        let count = |wanted: &dyn Fn(&Event) -> bool| {
            let events = acts.iter().flat_map(|act| &act.events);
            events.filter(|(_, event)| wanted(event)).count()
        };
        use crate::fault::Fault;
        for reload in [
            Reload::Good,
            Reload::NewName,
            Reload::NoYaml,
            Reload::WrongKey,
        ] {
            assert!(count(&|event| *event == Event::Reload(reload)) > 5);
        }
        let begins = |wanted: &dyn Fn(Fault) -> bool| {
            count(&|event| matches!(event, Event::Begin(_, trouble) if wanted(trouble.fault)))
        };
        assert!(begins(&|fault| fault == Fault::Refuse) > 3);
        assert!(begins(&|fault| fault == Fault::Hang) > 3);
        assert!(begins(&|fault| matches!(fault, Fault::ResetHead(_))) > 3);
        assert!(begins(&|fault| matches!(fault, Fault::CutBody(_))) > 3);
        for ending in [Ending::Orderly, Ending::Killed] {
            assert!(acts.iter().filter(|act| act.ending == ending).count() > 5);
        }
    }
}
