//! Checks the endpoints of upstreams (`health_check`): which are to be checked, when, and
//! what becomes of the answers.
//!
//! What checks find reaches the shards by [`Detector::set_fitness`] alone: they count for
//! no breaker, no ejection and no limit. An endpoint that is checked no more is healthy,
//! as if it had never been checked.
//!
//! [`Detector::set_fitness`]: crate::policy::outlier::Detector::set_fitness

mod check;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::addr::EndpointAddr;
use crate::clock;
use crate::policy::health_check::CheckRecord;
use crate::policy::outlier::{Fitness, Health};
use crate::route::settings::Upstream;
use crate::telemetry::Registry;
use crate::upstream::shared::Shared;

use check::{Check, Finding};

/// Checks at once, of all upstreams. It bounds descriptors and memory: where endpoints
/// are many and silent, their checks come later.
const CHECKS_MAX: usize = 64;

/// How often lists of endpoints are looked at: a new one is checked soon.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// An upstream whose endpoints are checked.
pub(crate) struct CheckedUpstream {
    /// What the configuration says of it.
    pub upstream: Arc<Upstream>,
    /// Its endpoints.
    pub shared: Arc<Shared>,
}

/// Checks the endpoints of the newest list of upstreams that came in, until the sender is
/// gone.
pub(super) async fn run(mut wanted: mpsc::Receiver<Vec<CheckedUpstream>>, registry: Arc<Registry>) {
    let mut checks = Checks::new(registry);
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = checks.next_due();
        tokio::select! {
            list = wanted.recv() => match list {
                Some(list) => checks.replace(list),
                None => return,
            },
            _ = look.tick(), if !checks.upstreams.is_empty() => checks.follow(),
            Some(ended) = checks.running.join_next_with_id() => checks.ended(ended),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                checks.begin_due();
            }
        }
    }
}

/// All that is checked.
struct Checks {
    /// By the id of what shards share of it.
    upstreams: HashMap<u32, CheckedUpstream>,
    /// By their numbers. An endpoint whose checks begin anew gets another one, so that
    /// what is still on its way for the old one is nobody's.
    endpoints: HashMap<u64, Endpoint>,
    next_number: u64,
    /// When each endpoint is checked next that is not being checked.
    due: BTreeSet<(Instant, u64)>,
    running: JoinSet<Finding>,
    /// Whose check a task is.
    numbers: HashMap<Id, u64>,
    registry: Arc<Registry>,
}

/// An endpoint that is checked.
struct Endpoint {
    upstream: u32,
    address: EndpointAddr,
    health: Arc<Health>,
    record: CheckRecord,
    /// Whether the log says already that it has no health service.
    is_known_to_lack_service: bool,
}

impl Checks {
    fn new(registry: Arc<Registry>) -> Self {
        Self {
            upstreams: HashMap::new(),
            endpoints: HashMap::new(),
            next_number: 0,
            due: BTreeSet::new(),
            running: JoinSet::new(),
            numbers: HashMap::new(),
            registry,
        }
    }

    /// Checks these upstreams in place of those before. With other settings the checks of
    /// an endpoint begin anew, and what was found of it stays until they find otherwise.
    fn replace(&mut self, list: Vec<CheckedUpstream>) {
        let list = list.into_iter().map(|one| (one.shared.id, one));
        let before = std::mem::replace(&mut self.upstreams, list.collect());
        let numbers: Vec<u64> = self.endpoints.keys().copied().collect();
        for number in numbers {
            let id = self.endpoints[&number].upstream;
            let settings = |one: &CheckedUpstream| one.upstream.policies.health_check.clone();
            let (was, is) = (before.get(&id), self.upstreams.get(&id));
            if was.map(settings) == is.map(settings) {
                continue;
            }
            let endpoint = self
                .endpoints
                .remove(&number)
                .expect("it is one of the keys");
            match (was, is) {
                (_, Some(_)) => self.add(id, endpoint.address, endpoint.health),
                (Some(was), None) => endpoint.release(was),
                (None, None) => {}
            }
        }
        self.follow();
    }

    /// Takes over the endpoints that there are now.
    fn follow(&mut self) {
        let mut known: HashSet<*const Health> = HashSet::new();
        let mut listed: HashSet<*const Health> = HashSet::new();
        let lists: Vec<_> = self
            .upstreams
            .iter()
            .map(|(id, one)| (*id, one.shared.endpoints.current()))
            .collect();
        for (_, list) in &lists {
            listed.extend(list.iter().map(|one| Arc::as_ptr(&one.health)));
        }
        // One that is gone is known to nobody else.
        self.endpoints.retain(|_, endpoint| {
            let health = Arc::as_ptr(&endpoint.health);
            listed.contains(&health) && known.insert(health)
        });
        for (id, list) in &lists {
            for one in list.iter() {
                if !known.contains(&Arc::as_ptr(&one.health)) {
                    self.add(*id, one.address, Arc::clone(&one.health));
                }
            }
        }
    }

    fn add(&mut self, upstream: u32, address: EndpointAddr, health: Arc<Health>) {
        let Some(of) = self.upstreams.get(&upstream) else {
            return;
        };
        let after = of
            .upstream
            .policies
            .health_check
            .first_after(clock::random_u64());
        let number = self.next_number;
        self.next_number += 1;
        self.due.insert((Instant::now() + after, number));
        let endpoint = Endpoint {
            upstream,
            address,
            record: CheckRecord::of(health.fitness()),
            health,
            is_known_to_lack_service: false,
        };
        self.endpoints.insert(number, endpoint);
    }

    /// When the next check begins; `None`: none may, or there is none.
    fn next_due(&self) -> Option<Instant> {
        let (at, _) = self.due.first()?;
        (self.running.len() < CHECKS_MAX).then_some(*at)
    }

    fn begin_due(&mut self) {
        let now = Instant::now();
        while self.next_due().is_some_and(|at| at <= now)
            && let Some((_, number)) = self.due.pop_first()
        {
            // It may be gone.
            let Some(endpoint) = self.endpoints.get(&number) else {
                continue;
            };
            let Some(of) = self.upstreams.get(&endpoint.upstream) else {
                continue;
            };
            let check = Check {
                upstream: Arc::clone(&of.upstream),
                address: endpoint.address,
                client: of.shared.tls.load_full(),
            };
            let task = self.running.spawn(check.make());
            self.numbers.insert(task.id(), number);
        }
    }

    fn ended(&mut self, ended: Result<(Id, Finding), JoinError>) {
        let (task, finding) = match ended {
            Ok((task, finding)) => (task, Some(finding)),
            // It panicked, which is logged: the next check may do better.
            Err(error) => (error.id(), None),
        };
        let Some(number) = self.numbers.remove(&task) else {
            return;
        };
        let Some(endpoint) = self.endpoints.get_mut(&number) else {
            return;
        };
        let Some(of) = self.upstreams.get(&endpoint.upstream) else {
            return;
        };
        let after = of
            .upstream
            .policies
            .health_check
            .next_after(clock::random_u64());
        self.due.insert((Instant::now() + after, number));
        if let Some(finding) = finding {
            self.registry
                .health_check(of.shared.label, finding.result());
            endpoint.note(of, &finding);
        }
    }
}

impl Endpoint {
    fn note(&mut self, of: &CheckedUpstream, finding: &Finding) {
        let (upstream, endpoint) = (&*of.upstream.name, self.address);
        let lacks_service = matches!(finding, Finding::Unimplemented);
        if lacks_service && !self.is_known_to_lack_service {
            tracing::warn!(
                upstream,
                %endpoint,
                "the endpoint has no health service (UNIMPLEMENTED): it counts as healthy"
            );
        }
        self.is_known_to_lack_service = lacks_service;
        let settings = &of.upstream.policies.health_check;
        let Some(fitness) = self.record.note(finding.fitness(), settings) else {
            return;
        };
        let detector = of.shared.endpoints.detector();
        detector.set_fitness(&self.health, fitness, clock::now());
        match finding {
            Finding::Serving | Finding::Unimplemented => {
                tracing::info!(upstream, %endpoint, "the endpoint is healthy again");
            }
            Finding::Failed(reason) => {
                tracing::warn!(upstream, %endpoint, %reason, "the endpoint is unhealthy");
            }
        }
    }

    /// It is checked no more.
    fn release(&self, of: &CheckedUpstream) {
        if self.health.fitness() == Fitness::Healthy {
            return;
        }
        let detector = of.shared.endpoints.detector();
        detector.set_fitness(&self.health, Fitness::Healthy, clock::now());
        let (upstream, endpoint) = (&*of.upstream.name, self.address);
        tracing::info!(upstream, %endpoint, "the endpoint is no longer checked, and counts as healthy");
    }
}

#[cfg(test)]
mod tests;
