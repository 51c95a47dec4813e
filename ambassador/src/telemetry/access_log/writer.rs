//! The thread that writes, and the end of it that a shard holds.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use super::super::registry::Registry;
use super::line::{Circumstances, Line, Told};
use super::{Settings, Target};
use crate::clock;

/// What one shard may have waiting for the writer.
const BUFFER_BYTES_MAX: usize = 256 * 1024;
/// Spare line buffers kept by a shard.
const SPARES_MAX: usize = 64;
/// How long an end of the program waits for a log that does not drain.
const FINISH_WITHIN: Duration = Duration::from_secs(1);

/// The access log of the process: owns the writer thread.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    writer: Thread,
    done: Receiver<()>,
    handle: JoinHandle<()>,
    registry: Arc<Registry>,
    sample: f64,
}

/// A shard's end of the access log.
#[derive(Debug)]
pub struct Sink {
    buffer: Arc<Mutex<Vec<u8>>>,
    shared: Arc<Shared>,
    writer: Thread,
    registry: Arc<Registry>,
    /// A random number below this is logged; `None`: all are.
    threshold: Option<u64>,
    spares: Vec<Vec<u8>>,
    /// Names seen, so that a line takes no lock for them.
    upstreams: Vec<Arc<str>>,
    listeners: Vec<Arc<str>>,
}

#[derive(Debug, Default)]
struct Shared {
    buffers: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    reopen: AtomicBool,
    stop: AtomicBool,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// Opens the target and starts the writer.
    pub fn start(settings: &Settings, registry: Arc<Registry>) -> io::Result<Self> {
        let file = open(&settings.target)?;
        let shared = Arc::new(Shared {
            dropped: Arc::clone(&registry.control.access_log_dropped),
            ..Shared::default()
        });
        let (finished, done) = channel();
        let handle = thread::Builder::new().name("access-log".into()).spawn({
            let (shared, target) = (Arc::clone(&shared), settings.target.clone());
            move || {
                Writer::new(target, file, shared).run();
                // Nobody waits where the log was given up on.
                let _ = finished.send(());
            }
        })?;
        Ok(Self {
            shared,
            writer: handle.thread().clone(),
            done,
            handle,
            registry,
            sample: settings.sample,
        })
    }

    /// An end of the log for one shard.
    pub fn sink(&self) -> Sink {
        let buffer = Arc::default();
        lock(&self.shared.buffers).push(Arc::clone(&buffer));
        Sink {
            buffer,
            shared: Arc::clone(&self.shared),
            writer: self.writer.clone(),
            registry: Arc::clone(&self.registry),
            threshold: (self.sample < 1.0).then_some((self.sample * u64::MAX as f64) as u64),
            spares: Vec::new(),
            upstreams: Vec::new(),
            listeners: Vec::new(),
        }
    }

    /// Opens the file anew, after it was rotated away.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.writer.unpark();
    }

    /// Writes out what is buffered and ends the thread; gives up after a second
    /// on a target that takes nothing.
    pub fn finish(self) {
        self.shared.stop.store(true, Ordering::Release);
        self.writer.unpark();
        match self.done.recv_timeout(FINISH_WITHIN) {
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("the access log takes no more; its last lines are lost");
            }
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                if self.handle.join().is_err() {
                    tracing::error!("the access log's writer panicked");
                }
            }
        }
    }
}

impl Sink {
    /// Decides whether a request or relayed connection is logged.
    pub(crate) fn sample(&mut self) -> Option<Line> {
        let wanted = self
            .threshold
            .is_none_or(|threshold| clock::random_u64() < threshold);
        wanted.then(|| Line::reusing(self.spares.pop().unwrap_or_default()))
    }

    /// Formats a line and leaves it to the writer.
    pub(crate) fn write(&mut self, line: Line, ended: Instant, told: Told<'_>) {
        let passage = told.passage();
        let (upstream, listener) = (passage.upstream.0 as usize, passage.listener.0 as usize);
        if upstream >= self.upstreams.len() || listener >= self.listeners.len() {
            self.upstreams = self.registry.upstream_names();
            self.listeners = self.registry.listener_names();
        }
        let name = |names: &[Arc<str>], at: usize| names.get(at).cloned().unwrap_or_default();
        let circumstances = Circumstances {
            upstream: &name(&self.upstreams, upstream),
            listener: &name(&self.listeners, listener),
            unix_ms: clock::unix_ms(),
            ended,
        };
        let mut buffer = lock(&self.buffer);
        let before = buffer.len();
        line.format(&mut buffer, told, circumstances);
        if buffer.len() > BUFFER_BYTES_MAX {
            buffer.truncate(before);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        drop(buffer);
        if before == 0 {
            self.writer.unpark();
        }
        if self.spares.len() < SPARES_MAX {
            self.spares.push(line.into_buffer());
        }
    }
}

/// The writer's own state.
struct Writer {
    target: Target,
    file: File,
    shared: Arc<Shared>,
    /// A write failed and has been reported; a later success resets it.
    failing: bool,
}

impl Writer {
    fn new(target: Target, file: File, shared: Arc<Shared>) -> Self {
        Self {
            target,
            file,
            shared,
            failing: false,
        }
    }

    fn run(mut self) {
        let mut taken = Vec::new();
        loop {
            let stopping = self.shared.stop.load(Ordering::Acquire);
            if self.shared.reopen.swap(false, Ordering::AcqRel) {
                self.reopen();
            }
            let wrote = self.write_out(&mut taken);
            if !wrote && stopping {
                return;
            }
            if !wrote {
                thread::park();
            }
        }
    }

    /// Whether any buffer held something.
    fn write_out(&mut self, taken: &mut Vec<u8>) -> bool {
        let buffers = {
            let mut buffers = lock(&self.shared.buffers);
            // A sink that is gone leaves its last lines and then its buffer.
            buffers.retain(|buffer| Arc::strong_count(buffer) > 1 || !lock(buffer).is_empty());
            buffers.clone()
        };
        let mut wrote = false;
        for buffer in &buffers {
            taken.clear();
            std::mem::swap(&mut *lock(buffer), taken);
            if taken.is_empty() {
                continue;
            }
            wrote = true;
            match self.file.write_all(taken) {
                Ok(()) => self.failing = false,
                Err(error) => self.lost(taken, &error),
            }
        }
        wrote
    }

    fn lost(&mut self, taken: &[u8], error: &io::Error) {
        let lines = memchr::memchr_iter(b'\n', taken).count() as u64;
        self.shared.dropped.fetch_add(lines, Ordering::Relaxed);
        if !self.failing {
            tracing::error!(%error, "cannot write the access log");
            self.failing = true;
        }
    }

    fn reopen(&mut self) {
        match open(&self.target) {
            Ok(file) => self.file = file,
            Err(error) => {
                tracing::error!(%error, "cannot open the access log anew; the old file is kept");
            }
        }
    }
}

fn open(target: &Target) -> io::Result<File> {
    Ok(match target {
        Target::Stdout => File::from(io::stdout().as_fd().try_clone_to_owned()?),
        Target::Stderr => File::from(io::stderr().as_fd().try_clone_to_owned()?),
        Target::File(path) => OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(path)?,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A holder only appends, swaps or truncates: what it leaves is usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::path::{Path, PathBuf};
    use std::rc::Rc;

    use super::super::super::record::{Passage, Telemetry};
    use super::super::super::registry::ListenerIndex;
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn start(path: &Path, sample: f64) -> AccessLog {
        let settings = Settings {
            target: Target::File(path.to_owned()),
            sample,
        };
        AccessLog::start(&settings, Arc::default()).unwrap()
    }

    fn captured() -> Passage {
        Passage::new(ListenerIndex::CAPTURE, clock::now())
    }

    fn requests(log: &AccessLog, count: usize) {
        let telemetry = Rc::new(Telemetry::new(Some(log.sink())));
        for _ in 0..count {
            let request = telemetry.begin(captured());
            request.complete(clock::now());
        }
    }

    #[test]
    fn every_request_is_one_line_and_finish_writes_the_last() {
        let scratch = Scratch::new("access-log-lines");
        let path = scratch.0.join("log");
        let log = start(&path, 1.0);
        let shards: Vec<_> = (0..2).map(|_| log.sink()).collect();
        thread::scope(|scope| {
            for sink in shards {
                scope.spawn(move || {
                    let telemetry = Rc::new(Telemetry::new(Some(sink)));
                    for _ in 0..100 {
                        drop(telemetry.begin(captured()));
                    }
                });
            }
        });
        log.finish();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 200);
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["upstream"], "unmatched");
            assert_eq!(line["cancelled"], true);
        }
    }

    #[test]
    fn a_sample_of_nothing_logs_nothing() {
        let scratch = Scratch::new("access-log-none");
        let path = scratch.0.join("log");
        let log = start(&path, 0.0);
        requests(&log, 100);
        log.finish();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn reopening_follows_a_rotation() {
        let scratch = Scratch::new("access-log-rotated");
        let (path, old) = (scratch.0.join("log"), scratch.0.join("log.1"));
        let log = start(&path, 1.0);
        std::fs::rename(&path, &old).unwrap();
        log.reopen();
        requests(&log, 1);
        log.finish();
        let lines = |path: &Path| {
            std::fs::read_to_string(path)
                .unwrap_or_default()
                .lines()
                .count()
        };
        assert_eq!(lines(&old) + lines(&path), 1);
        assert!(path.exists());
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_not_time() {
        let scratch = Scratch::new("access-log-stalled");
        let path = scratch.0.join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        // Opened for both, so that neither open waits for the other end.
        let reader = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let log = start(&path, 1.0);
        let enough = 4 * BUFFER_BYTES_MAX / 100;
        requests(&log, enough);
        let dropped = log.shared.dropped.load(Ordering::Relaxed);
        assert!(dropped > 0, "nothing was dropped of {enough} lines");
        let expected = enough as u64 - dropped;
        let drained = thread::spawn(move || {
            let lines = BufReader::new(reader.take(u64::MAX)).lines();
            lines.take(expected as usize).filter(Result::is_ok).count()
        });
        assert_eq!(drained.join().unwrap() as u64, expected);
        log.finish();
    }
}
