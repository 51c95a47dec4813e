//! One life of the proxy, from its start to its end, and the checks of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ambassador_tests::proxy::Scratch;
use ambassador_tests::{Backend, Proxy};
use serde_json::Value;

use crate::endpoint::MOMENT;
use crate::ledger::{Ledger, Sent};
use crate::schedule::{Ending, Reload};

/// How long the proxy is given to come to what is right.
const SOON: Duration = Duration::from_secs(10);

/// What a quiet proxy may have beyond what it started with: the log, the
/// connections of an admin client that is leaving.
const DESCRIPTORS_MORE: usize = 6;

/// Threads of the control side come and go by two.
const THREADS_MORE: usize = 2;

/// Memory that is its own may grow by so much from the first check on: what load
/// leaves behind in the allocator.
const MEMORY_MORE: u64 = 8 << 20;

/// What the names begin with of upstreams that come by a reload.
const NEW_NAME: &str = "new-";

/// Lines of its log that are shown when something broke.
const LAST_LINES: usize = 10;

/// A running proxy and what it should have counted.
pub struct Life {
    proxy: Proxy,
    scratch: Scratch,
    settings: Settings,
    at_start: Figures,
    reloads: u64,
    failed_reloads: u64,
    /// At the first check.
    memory: Option<u64>,
}

/// What its configuration is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where callers connect.
    pub listen: SocketAddr,
    /// Of the upstream that has several.
    pub endpoints: Vec<SocketAddr>,
    /// Of the upstream that has one.
    pub single: SocketAddr,
    /// A number that reloads change.
    pub max_idle: u64,
    /// Upstreams that came by a reload.
    pub new_name: Option<String>,
}

/// What must stay flat.
#[derive(Debug, Clone, Copy)]
struct Figures {
    descriptors: usize,
    threads: usize,
}

impl Life {
    /// Starts a proxy and waits until it is ready.
    pub fn start(backend: Backend, settings: Settings) -> Life {
        let scratch = Scratch::new();
        let config = settings.file(&log_path(&scratch));
        let proxy = Proxy::start(backend, &config);
        let at_start = figures(&proxy);
        Life {
            proxy,
            scratch,
            settings,
            at_start,
            reloads: 0,
            failed_reloads: 0,
            memory: None,
        }
    }

    /// What it said last, where it panicked, and what its access log has of the
    /// targets that `broken` names.
    pub fn last_words(&self, broken: &str) -> String {
        let said = self.proxy.log();
        let lines: Vec<&str> = said.lines().collect();
        let mut words = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        // The place and the message; frames follow.
        for (number, line) in lines.iter().enumerate() {
            if line.contains("panicked at") {
                let message = lines.get(number + 1).unwrap_or(&"");
                words.push_str(&format!("\n{line}\n{message}"));
            }
        }
        let log = std::fs::read_to_string(log_path(&self.scratch)).unwrap_or_default();
        for target in broken.split(' ').filter(|word| word.starts_with('/')) {
            let target = format!("\"{target}\"");
            for line in log.lines().filter(|line| line.contains(&target)) {
                words.push_str(&format!("\n{line}"));
            }
        }
        words
    }

    /// Replaces the file and waits until the proxy has taken note of it. Gives
    /// the host of an upstream that is new.
    pub fn reload(&mut self, reload: Reload, number: u64) -> Result<Option<String>, String> {
        let before = self.settings.clone();
        let mut host = None;
        match reload {
            Reload::Good => self.settings.max_idle = 32 + number,
            Reload::NewName => {
                let name = format!("{NEW_NAME}{number}");
                host = Some(format!("{name}.test"));
                self.settings.new_name = Some(name);
            }
            Reload::NoYaml | Reload::WrongKey => {}
        }
        let mut file = self.settings.file(&log_path(&self.scratch));
        match reload {
            Reload::Good | Reload::NewName => self.reloads += 1,
            Reload::NoYaml => file.push_str(&format!("[{number}\n")),
            Reload::WrongKey => file.push_str(&format!("nonsense_{number}: 1\n")),
        }
        if matches!(reload, Reload::NoYaml | Reload::WrongKey) {
            self.failed_reloads += 1;
            self.settings = before;
        }
        self.proxy.rewrite_config(&file);
        self.wait_for("reloads are counted", || {
            let metrics = self.proxy.metrics();
            let counted = [
                metrics.sum("ambassador_config_reloads_total", &[]),
                metrics.sum("ambassador_config_reload_failures_total", &[]),
            ];
            let made = [self.reloads as f64, self.failed_reloads as f64];
            match counted == made {
                true => Ok(()),
                false => Err(format!("{counted:?}, and there were {made:?}")),
            }
        })?;
        Ok(host)
    }

    /// With the load paused: the books agree, and nothing is left of the load.
    pub fn check(&mut self, ledger: &Ledger) -> Result<(), String> {
        self.wait_for("requests sent, log lines and metrics agree", || {
            self.books_agree(ledger.sent())
        })?;
        self.wait_for("a proxy without load is quiet", || self.is_quiet())?;
        let memory = self.proxy.anonymous_bytes();
        let first = *self.memory.get_or_insert(memory);
        match memory <= first + MEMORY_MORE {
            true => Ok(()),
            false => Err(format!("memory grew from {first} to {memory} bytes")),
        }
    }

    /// Upstreams that have left the configuration are forgotten by the metrics,
    /// so that names that come and go do not fill them: the log alone has them.
    fn books_agree(&self, sent: Sent) -> Result<(), String> {
        let metrics = self.proxy.metrics();
        let logged = self.log_lines();
        let dropped = metrics.sum("ambassador_access_log_dropped_lines_total", &[]) as u64;
        let left = |name: &str| name.starts_with(NEW_NAME) && !self.settings.has(name);
        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        for sample in metrics.samples("ambassador_requests_total") {
            let name = sample.label("upstream").unwrap_or_default();
            *counted.entry(name.to_owned()).or_default() += sample.value as u64;
        }
        counted.retain(|name, count| *count > 0 && !left(name));
        let mut remaining = logged.clone();
        remaining.retain(|name, _| !left(name));
        let total = logged.values().sum::<u64>();
        let may_be = sent.surely..=sent.surely + sent.perhaps;
        match counted == remaining && dropped == 0 && may_be.contains(&total) {
            true => Ok(()),
            false => Err(format!(
                "{sent:?}, {counted:?} in metrics, {logged:?} in the log, {dropped} dropped from it; \
                 twice in the log: {:?}",
                self.logged_twice()
            )),
        }
    }

    fn is_quiet(&self) -> Result<(), String> {
        let metrics = self.proxy.metrics();
        let connections = metrics.sum("ambassador_connections", &[]);
        let pending = metrics.sum("ambassador_pool_connections", &[("state", "pending")]);
        let in_flight: u64 = ["web", "single"]
            .iter()
            .filter_map(|name| self.proxy.upstream(name)["in_flight"].as_u64())
            .sum();
        let now = figures(&self.proxy);
        let flat = now.descriptors <= self.at_start.descriptors + DESCRIPTORS_MORE
            && now.threads <= self.at_start.threads + THREADS_MORE;
        match flat && connections + pending == 0.0 && in_flight == 0 {
            true => Ok(()),
            false => Err(format!(
                "{connections} connections, {pending} pending, {in_flight} in flight, {now:?}, \
                 {:?} at its start",
                self.at_start
            )),
        }
    }

    /// Ends it under load; what the log must have at least is known where it
    /// could end by itself.
    pub fn end(mut self, ending: Ending, ledger: &Ledger) -> Result<Settings, String> {
        match ending {
            Ending::Killed => self.proxy.kill(),
            Ending::Orderly => {
                self.proxy.signal(libc::SIGTERM);
                let status = self.proxy.wait(SOON);
                if status.code() != Some(0) {
                    return Err(format!("after SIGTERM the proxy ended with {status}"));
                }
                // Callers write down what they got a moment after they got it.
                let sent = ledger.sent();
                let logged = self.log_lines().values().sum::<u64>();
                if logged > sent.surely + sent.perhaps + CALLERS_AT_ONCE {
                    return Err(format!("{sent:?}, and {logged} in the log at the end"));
                }
            }
        }
        if self.proxy.log().contains("panicked") {
            return Err(format!("a panic: {}", self.proxy.log()));
        }
        Ok(self.settings.clone())
    }

    /// Requests in the access log, by upstream.
    fn log_lines(&self) -> BTreeMap<String, u64> {
        let text = std::fs::read_to_string(log_path(&self.scratch)).unwrap_or_default();
        let mut lines = BTreeMap::new();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_default();
            if line["status"].is_u64() {
                let name = line["upstream"].as_str().unwrap_or_default();
                *lines.entry(name.to_owned()).or_default() += 1;
            }
        }
        lines
    }

    /// Targets of the access log that stand there more than once.
    fn logged_twice(&self) -> Vec<String> {
        let text = std::fs::read_to_string(log_path(&self.scratch)).unwrap_or_default();
        let mut times: BTreeMap<String, u64> = BTreeMap::new();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_default();
            let path = line["path"].as_str().unwrap_or_default();
            *times.entry(path.to_owned()).or_default() += 1;
        }
        times.retain(|_, times| *times > 1);
        times.into_keys().collect()
    }

    fn wait_for(&self, what: &str, holds: impl Fn() -> Result<(), String>) -> Result<(), String> {
        let until = Instant::now() + SOON;
        loop {
            match holds() {
                Ok(()) => return Ok(()),
                Err(found) if Instant::now() > until => {
                    return Err(format!("{what}: {found}"));
                }
                Err(_) => std::thread::sleep(MOMENT),
            }
        }
    }
}

/// Callers that may have a request under way when the proxy ends.
const CALLERS_AT_ONCE: u64 = 64;

fn log_path(scratch: &Scratch) -> PathBuf {
    scratch.path().join("access.log")
}

fn figures(proxy: &Proxy) -> Figures {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.pid()));
    Figures {
        descriptors: proxy.open_files(),
        threads: tasks.map_or(0, Iterator::count),
    }
}

impl Settings {
    /// Whether an upstream of a reload is still there.
    fn has(&self, name: &str) -> bool {
        self.new_name.as_deref() == Some(name)
    }

    /// The file, without the admin address.
    fn file(&self, log: &std::path::Path) -> String {
        let several = self
            .endpoints
            .iter()
            .map(|address| format!("\"{address}\""));
        let several = several.collect::<Vec<_>>().join(", ");
        let policies = "timeouts: { per_try: 1s, request: 5s }, \
             retry: { base: 20ms, on: [connect-failure, reset, 429, 500, 503] }, \
             outlier: { base_ejection: 1s, interval: 1s, max_ejected: 50% }";
        let mut file = format!(
            "drain_timeout: 5s\n\
             telemetry: {{ access_log: {{ path: {}, format: json, sample: 100% }} }}\n\
             listeners: [{{ name: egress, bind: \"{}\" }}]\n\
             defaults: {{ pool: {{ idle_timeout: 1s, max_idle: {} }}, {policies} }}\n\
             upstreams:\n\
             \x20 web: {{ hosts: [web.test], endpoints: [{several}] }}\n\
             \x20 single: {{ hosts: [single.test], endpoints: [\"{}\"] }}\n",
            log.display(),
            self.listen,
            self.max_idle,
            self.single,
        );
        if let Some(name) = &self.new_name {
            file.push_str(&format!(
                "  {name}: {{ hosts: [{name}.test], endpoints: [{several}] }}\n"
            ));
        }
        file
    }
}
