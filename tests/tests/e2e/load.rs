//! Callers that ask all the time while a test changes something, and what is kept of the
//! requests that fail.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use ambassador_tests::{Client, Proxy, Response};

const CALLERS: usize = 4;
const PAUSE: Duration = Duration::from_millis(2);
const SECOND: Duration = Duration::from_secs(1);

/// One caller. It is given a mark of each request, which log lines are found by where its
/// path has it, and says what came that should not have.
pub(crate) type Caller = Box<dyn FnMut(&str) -> Result<(), String>>;

/// Callers that ask all the time until they are told to stop.
pub(crate) struct Load {
    stopped: Arc<AtomicBool>,
    failed: Arc<Mutex<Vec<FailedRequest>>>,
    callers: Vec<JoinHandle<usize>>,
    watch: JoinHandle<Duration>,
}

/// What came of it.
pub(crate) struct LoadResult {
    /// How many requests were made.
    pub asked: usize,
    /// Those that failed.
    pub failed: Vec<FailedRequest>,
    /// The longest time for which the machine kept a thread waiting that had nothing to
    /// do but to wake up.
    pub stall: Duration,
}

/// A request that failed.
pub(crate) struct FailedRequest {
    mark: String,
    /// Since the load began.
    at: Duration,
    took: Duration,
    what: String,
}

impl Load {
    /// `caller` makes each of the callers.
    pub(crate) fn start(caller: impl Fn() -> Caller + Send + Sync + 'static) -> Load {
        let stopped = Arc::new(AtomicBool::new(false));
        let failed: Arc<Mutex<Vec<FailedRequest>>> = Arc::default();
        let (caller, begun) = (Arc::new(caller), Instant::now());
        let callers = (0..CALLERS).map(|number| {
            let (stopped, failed) = (Arc::clone(&stopped), Arc::clone(&failed));
            let caller = Arc::clone(&caller);
            std::thread::spawn(move || {
                let (mut ask, mut count) = (caller(), 0);
                while !stopped.load(Ordering::Relaxed) {
                    count += 1;
                    let mark = format!("{number}-{count}");
                    let at = begun.elapsed();
                    if let Err(what) = ask(&mark) {
                        let took = begun.elapsed() - at;
                        lock(&failed).push(FailedRequest {
                            mark,
                            at,
                            took,
                            what,
                        });
                    }
                    sleep(PAUSE);
                }
                count
            })
        });
        let watched = Arc::clone(&stopped);
        Load {
            callers: callers.collect(),
            watch: std::thread::spawn(move || longest_stall(&watched)),
            stopped,
            failed,
        }
    }

    /// Callers of this listener, each on a connection of its own for as long as that
    /// lives, whose requests have to be answered with 200.
    pub(crate) fn on(listen: SocketAddr) -> Load {
        Load::start(move || {
            let mut client = Client::connect(listen);
            Box::new(move |mark| {
                let sent = client.try_send(request(mark)).is_ok();
                let answer = sent.then(|| client.try_response("GET")).flatten();
                if answer.is_none() {
                    client = Client::connect(listen);
                }
                is_200(answer.as_ref())
            })
        })
    }

    /// Ends it, when each caller has its answer. What changes goes on until then, once a
    /// second.
    pub(crate) fn stop_while(self, mut change: impl FnMut()) -> LoadResult {
        self.stopped.store(true, Ordering::Relaxed);
        let mut due = Instant::now() + SECOND;
        while !self.callers.iter().all(JoinHandle::is_finished) {
            sleep(PAUSE);
            if Instant::now() >= due {
                change();
                due += SECOND;
            }
        }
        self.stop()
    }

    /// Ends it, when each caller has its answer.
    pub(crate) fn stop(self) -> LoadResult {
        self.stopped.store(true, Ordering::Relaxed);
        let callers = self.callers.into_iter();
        let asked = callers.map(|caller| caller.join().expect("no caller panics"));
        LoadResult {
            asked: asked.sum(),
            failed: std::mem::take(&mut *lock(&self.failed)),
            stall: self.watch.join().expect("it only looks at the clock"),
        }
    }
}

impl LoadResult {
    /// None has failed; else says what is known of those that did, from their answers and
    /// from the logs of the proxies that they came through.
    #[track_caller]
    pub(crate) fn expect_none_failed(&self, proxies: &[&Proxy]) {
        if self.failed.is_empty() {
            return;
        }
        let logs: Vec<_> = proxies.iter().map(|proxy| proxy.log()).collect();
        for one in &self.failed {
            println!(
                "{:?} after the begin, for {:?}: {}",
                one.at, one.took, one.what
            );
            let path = path(&one.mark);
            for (number, log) in logs.iter().enumerate() {
                let of_it = |line: &&str| line.contains(&format!("\"{path}\""));
                log.lines()
                    .filter(of_it)
                    .for_each(|line| println!("  proxy {number}: {line}"));
            }
        }
        for (number, log) in logs.iter().enumerate() {
            println!("beside its access log, proxy {number} said:");
            let lines = log.lines().filter(|line| !line.starts_with('{'));
            lines.for_each(|line| println!("  {line}"));
        }
        panic!(
            "{} of {} requests failed; the machine stalled for up to {:?}",
            self.failed.len(),
            self.asked,
            self.stall
        );
    }
}

/// What has come instead of a 200.
pub(crate) fn is_200(answer: Option<&Response>) -> Result<(), String> {
    match answer {
        Some(answer) if answer.status == 200 => Ok(()),
        Some(answer) => Err(format!(
            "{} {}: {}",
            answer.status,
            answer.reason(),
            answer.text().trim_end()
        )),
        None => Err("the connection ended without an answer".to_owned()),
    }
}

fn lock(failed: &Mutex<Vec<FailedRequest>>) -> MutexGuard<'_, Vec<FailedRequest>> {
    failed.lock().unwrap_or_else(PoisonError::into_inner)
}

fn path(mark: &str) -> String {
    format!("/load/{mark}")
}

fn request(mark: &str) -> String {
    format!("GET {} HTTP/1.1\r\nHost: web.test\r\n\r\n", path(mark))
}

/// By how much a thread that wakes up all the time was late at most.
fn longest_stall(stopped: &AtomicBool) -> Duration {
    let mut longest = Duration::ZERO;
    while !stopped.load(Ordering::Relaxed) {
        let due = Instant::now() + PAUSE;
        sleep(PAUSE);
        longest = longest.max(due.elapsed());
    }
    longest
}
