//! A run: the acts of the schedule, one after the other, with the callers
//! beside them.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ambassador_tests::{Backend, ports};

use crate::caller::{Caller, Kind};
use crate::endpoint::{Endpoint, MOMENT};
use crate::gate::Gate;
use crate::ledger::{Broken, Ledger, Totals};
use crate::life::{Life, Settings};
use crate::random::Random;
use crate::schedule::{self, Act, Event};

/// Callers at the same time.
const CALLERS: u64 = 8;

/// The books are checked so often, and at the end of each act.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Load goes on for so long behind the check of the books, so that the proxy is
/// ended under it.
const LOAD_BEFORE_END: Duration = Duration::from_millis(500);

/// What is left when it is over.
pub struct Outcome {
    /// What did not hold, if anything.
    pub broken: Option<Broken>,
    /// What became of the requests.
    pub totals: Totals,
    /// Lives of the proxy.
    pub lives: usize,
}

struct Run {
    seed: u64,
    ledger: Arc<Ledger>,
    gate: Arc<Gate>,
    endpoints: Vec<Endpoint>,
    /// Calls what is new.
    prober: Caller,
    reloads: u64,
}

/// Plays the schedule of a seed.
pub fn run(seed: u64, time: Duration) -> io::Result<Outcome> {
    let ledger = Arc::new(Ledger::new());
    let gate = Arc::new(Gate::default());
    let endpoints = (0..=schedule::ENDPOINTS)
        .map(|number| Endpoint::start(Arc::clone(&ledger), Random::new(seed, 100 + number as u64)))
        .collect::<io::Result<Vec<_>>>()?;
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let addresses: Vec<SocketAddr> = endpoints.iter().map(Endpoint::address).collect();
    let settings = Settings {
        listen,
        endpoints: addresses[..schedule::ENDPOINTS].to_vec(),
        single: addresses[schedule::SINGLE],
        max_idle: 32,
        new_name: None,
    };
    let caller = |number: u64| Caller {
        proxy: listen,
        ledger: Arc::clone(&ledger),
        random: Random::new(seed, 200 + number),
        number: number << 40,
        line: None,
    };
    let mut run = Run {
        seed,
        ledger: Arc::clone(&ledger),
        gate: Arc::clone(&gate),
        endpoints,
        prober: caller(CALLERS),
        reloads: 0,
    };
    let acts = schedule::acts(seed, time);
    gate.pause();
    let callers: Vec<JoinHandle<()>> = (0..CALLERS)
        .map(|number| {
            let (caller, gate) = (caller(number), Arc::clone(&gate));
            std::thread::spawn(move || caller.run(&gate))
        })
        .collect();
    // The harness of the end-to-end tests panics where a proxy does not start.
    let played = catch_unwind(AssertUnwindSafe(|| run.play(&acts, settings)));
    let lives = played.unwrap_or_else(|_| {
        ledger.broke("the proxy did not start or did not answer, see above".into());
        0
    });
    gate.close();
    for caller in callers {
        if caller.join().is_err() {
            ledger.broke("a caller panicked".into());
        }
    }
    Ok(Outcome {
        broken: ledger.broken(),
        totals: ledger.totals(),
        lives,
    })
}

impl Run {
    /// Plays the acts, as long as everything holds.
    fn play(&mut self, acts: &[Act], mut settings: Settings) -> usize {
        for (number, act) in acts.iter().enumerate() {
            let backend = match (self.seed + number as u64) % 2 {
                0 => Backend::Ring,
                _ => Backend::Epoll,
            };
            println!(
                "act {} of {}: {} events over {}, then {:?}",
                number + 1,
                acts.len(),
                act.events.len(),
                backend.name(),
                act.ending
            );
            match self.act(act, backend, settings) {
                Ok(next) => settings = next,
                Err(what) => {
                    self.ledger.broke(what);
                    return number + 1;
                }
            }
            if self.ledger.broken().is_some() {
                return number + 1;
            }
        }
        acts.len()
    }

    fn act(&mut self, act: &Act, backend: Backend, settings: Settings) -> Result<Settings, String> {
        let mut life = Life::start(backend, settings);
        self.ledger.forget_sent();
        self.ledger.restart_ends();
        if let Err(what) = self.live(act, &mut life) {
            eprintln!("{}", life.last_words(&what));
            return Err(what);
        }
        self.ledger.restart_begins(act.ending);
        let settings = life.end(act.ending, &self.ledger)?;
        // What callers lost with it belongs to this life.
        self.gate.pause();
        Ok(settings)
    }

    /// From the start of the load to the moment before the end.
    fn live(&mut self, act: &Act, life: &mut Life) -> Result<(), String> {
        self.gate.open();
        let mut began = Instant::now();
        let mut next_check = CHECK_EVERY;
        for (at, event) in &act.events {
            self.check_until(*at, life, (&mut began, &mut next_check))?;
            self.wait_until(began + *at)?;
            self.happen(*event, life)?;
        }
        self.check_until(act.until, life, (&mut began, &mut next_check))?;
        self.wait_until(began + act.until)?;
        self.check(life)?;
        self.wait_until(Instant::now() + LOAD_BEFORE_END)
    }

    /// Makes the checks that are due before `at`. The time that one takes is no
    /// time of the act: what follows moves with it.
    fn check_until(
        &mut self,
        at: Duration,
        life: &mut Life,
        (began, next): (&mut Instant, &mut Duration),
    ) -> Result<(), String> {
        while *next < at {
            self.wait_until(*began + *next)?;
            *began += self.check(life)?;
            *next += CHECK_EVERY;
        }
        Ok(())
    }

    /// Checks the books while the load pauses, and says how long that took.
    fn check(&mut self, life: &mut Life) -> Result<Duration, String> {
        let paused = Instant::now();
        self.gate.pause();
        self.prober.line = None;
        life.check(&self.ledger)?;
        self.gate.open();
        Ok(paused.elapsed())
    }

    fn happen(&mut self, event: Event, life: &mut Life) -> Result<(), String> {
        match event {
            Event::Begin(number, trouble) => {
                if number != schedule::SINGLE {
                    self.ledger.begin(number, trouble.visible());
                }
                self.endpoints[number].begin(trouble);
            }
            Event::End(number) => {
                let ended = self.endpoints[number].end();
                ended.map_err(|error| format!("an endpoint cannot listen again: {error}"))?;
                if number != schedule::SINGLE {
                    self.ledger.end(number);
                }
            }
            Event::Reload(reload) => {
                self.reloads += 1;
                if let Some(host) = life.reload(reload, self.reloads)? {
                    self.prober.call(Kind::Get, &host);
                }
            }
        }
        Ok(())
    }

    /// Waits, as long as everything holds.
    fn wait_until(&self, at: Instant) -> Result<(), String> {
        while Instant::now() < at {
            if let Some(broken) = self.ledger.broken() {
                return Err(broken.what);
            }
            std::thread::sleep(MOMENT.min(at.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }
}
