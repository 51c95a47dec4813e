//! The thread that writes the access log, and the buffer of each shard.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use super::super::registry::{ListenerIndex, Registry, UpstreamIndex};
use super::line::{Circumstances, Line, LogRecord};
use super::{Keep, Settings, Target};
use crate::clock::{self, Instant};

/// What one shard may have waiting for the writer.
const BUFFER_BYTES_MAX: usize = 256 * 1024;
/// Spare line buffers kept by a shard.
const SPARES_MAX: usize = 64;
/// How long an end of the program waits for a log that does not drain.
const FINISH_WITHIN: Duration = Duration::from_secs(1);

/// The access log of the process: owns the writer thread.
#[derive(Debug)]
pub(crate) struct AccessLog {
    shared: Arc<Shared>,
    writer: Thread,
    done: Receiver<()>,
    /// None once it was waited for.
    handle: Option<JoinHandle<()>>,
    registry: Arc<Registry>,
    sample: f64,
    keep: Keep,
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
    /// What is logged whatever the number is.
    keep: Keep,
    spares: Vec<Vec<u8>>,
    /// Names seen, so that a line takes no lock for them.
    upstreams: BTreeMap<UpstreamIndex, Arc<str>>,
    listeners: BTreeMap<ListenerIndex, Arc<str>>,
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
    pub(crate) fn start(settings: &Settings, registry: Arc<Registry>) -> io::Result<Self> {
        let (file, before) = open(settings)?;
        let shared = Arc::new(Shared {
            dropped: Arc::clone(&registry.control.access_log_dropped),
            ..Shared::default()
        });
        let (finished, done) = channel();
        let handle = thread::Builder::new().name("access-log".into()).spawn({
            let (shared, settings) = (Arc::clone(&shared), settings.clone());
            move || {
                let mut writer = Writer::new(settings, file, shared);
                writer.unfinished = before;
                writer.run();
                // Nobody waits where the log was given up on.
                let _ = finished.send(());
            }
        })?;
        Ok(Self {
            shared,
            writer: handle.thread().clone(),
            done,
            handle: Some(handle),
            registry,
            sample: settings.sample,
            keep: settings.keep,
        })
    }

    /// An end of the log for one shard.
    pub(crate) fn sink(&self) -> Sink {
        let buffer = Arc::default();
        lock(&self.shared.buffers).push(Arc::clone(&buffer));
        Sink {
            buffer,
            shared: Arc::clone(&self.shared),
            writer: self.writer.clone(),
            registry: Arc::clone(&self.registry),
            threshold: (self.sample < 1.0).then_some((self.sample * u64::MAX as f64) as u64),
            keep: self.keep,
            spares: Vec::new(),
            upstreams: BTreeMap::new(),
            listeners: BTreeMap::new(),
        }
    }

    /// Opens the file anew, after it was rotated away.
    pub(crate) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.writer.unpark();
    }

    /// Writes out what is buffered and ends the thread; gives up after a second
    /// on a target that takes nothing.
    pub(crate) fn finish(mut self) {
        self.stop();
        match self.done.recv_timeout(FINISH_WITHIN) {
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("the access log cannot be written; its last lines are lost");
            }
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                let handle = self.handle.take();
                if handle.is_some_and(|handle| handle.join().is_err()) {
                    tracing::error!("the access log's writer panicked");
                }
            }
        }
    }

    fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.writer.unpark();
    }
}

impl Drop for AccessLog {
    /// Its thread ends with what was buffered, and nobody waits for that.
    fn drop(&mut self) {
        self.stop();
    }
}

impl Sink {
    /// One of which nobody writes anything out, and the lines that it gets.
    #[cfg(test)]
    pub(crate) fn kept(registry: Arc<Registry>) -> (Self, Arc<Mutex<Vec<u8>>>) {
        let buffer = Arc::default();
        let sink = Self {
            buffer: Arc::clone(&buffer),
            shared: Arc::default(),
            writer: thread::current(),
            registry,
            threshold: None,
            keep: Keep::default(),
            spares: Vec::new(),
            upstreams: BTreeMap::new(),
            listeners: BTreeMap::new(),
        };
        (sink, buffer)
    }

    /// Decides whether a request or relayed connection is logged, or may be.
    #[inline(never)]
    pub(crate) fn sample(&mut self) -> Option<Line> {
        let is_sampled = self
            .threshold
            .is_none_or(|threshold| clock::random_u64() < threshold);
        let may_be_written = is_sampled || self.keep.is_any();
        may_be_written.then(|| Line::reusing(self.spares.pop().unwrap_or_default(), is_sampled))
    }

    /// Formats a line and leaves it to the writer, unless neither the sample has it nor
    /// anything else keeps it.
    pub(crate) fn write(&mut self, line: &Line, ended: Instant, logged: LogRecord<'_>) {
        let passage = logged.passage();
        let took = ended.saturating_duration_since(passage.started);
        if line.is_sampled() || self.keep.keeps(logged, took) {
            self.write_out(line, ended, logged);
        }
    }

    /// Takes the buffer of a line that nobody needs any more.
    pub(crate) fn take_back(&mut self, line: Line) {
        if self.spares.len() < SPARES_MAX {
            self.spares.push(line.into_buffer());
        }
    }

    fn write_out(&mut self, line: &Line, ended: Instant, logged: LogRecord<'_>) {
        let passage = logged.passage();
        let (upstream, listener) = (passage.upstream, passage.listener);
        let known =
            self.upstreams.contains_key(&upstream) && self.listeners.contains_key(&listener);
        if !known {
            self.upstreams = self.registry.upstream_names();
            self.listeners = self.registry.listener_names();
        }
        let circumstances = Circumstances {
            upstream: self.upstreams.get(&upstream).map_or("", |name| name),
            listener: self.listeners.get(&listener).map_or("", |name| name),
            unix_ms: clock::unix_ms(),
            ended,
        };
        let mut buffer = lock(&self.buffer);
        let before = buffer.len();
        line.format(&mut buffer, logged, circumstances);
        if buffer.len() > BUFFER_BYTES_MAX {
            buffer.truncate(before);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        drop(buffer);
        if before == 0 {
            self.writer.unpark();
        }
    }
}

/// The writer's own state.
struct Writer {
    settings: Settings,
    file: File,
    shared: Arc<Shared>,
    /// The rest of a line of which the file has the beginning: its end alone where
    /// another process began it.
    unfinished: Vec<u8>,
    /// A write failed and has been reported; a later success resets it.
    failing: bool,
}

impl Writer {
    fn new(settings: Settings, file: File, shared: Arc<Shared>) -> Self {
        Self {
            settings,
            file,
            shared,
            unfinished: Vec::new(),
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
            let lines = self.settings.format.of(taken);
            self.write(&lines);
        }
        wrote
    }

    /// Writes whole lines, or counts them as lost.
    fn write(&mut self, lines: &[u8]) {
        if !self.unfinished.is_empty() {
            let rest = std::mem::take(&mut self.unfinished);
            let (written, result) = write_some(&mut self.file, &rest);
            if let Err(error) = result {
                self.unfinished = rest[written..].to_vec();
                return self.lost(lines, &error);
            }
        }
        let (written, result) = write_some(&mut self.file, lines);
        let Err(error) = result else {
            self.failing = false;
            return;
        };
        let begun = memchr::memrchr(b'\n', &lines[..written]).map_or(0, |end| end + 1);
        let cut = written - begun;
        if cut == 0 || take_back(&mut self.file, cut as u64) {
            return self.lost(&lines[begun..], &error);
        }
        let end =
            memchr::memchr(b'\n', &lines[written..]).map_or(lines.len(), |at| written + at + 1);
        self.unfinished = lines[written..end].to_vec();
        self.lost(&lines[end..], &error);
    }

    fn lost(&mut self, lines: &[u8], error: &io::Error) {
        let count = memchr::memchr_iter(b'\n', lines).count() as u64;
        self.shared.dropped.fetch_add(count, Ordering::Relaxed);
        if !self.failing {
            tracing::error!(%error, "cannot write the access log");
            self.failing = true;
        }
    }

    fn reopen(&mut self) {
        match open(&self.settings) {
            Ok((file, before)) => {
                let old = std::mem::replace(&mut self.file, file);
                if is_same(&old, &self.file) {
                    return;
                }
                // The rest of a line is of no use in another file.
                let unfinished = std::mem::replace(&mut self.unfinished, before);
                if unfinished.len() > 1 {
                    self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) => {
                tracing::error!(%error, "cannot open the access log anew; the old file is kept");
            }
        }
    }
}

/// Writes until an error; says how much was taken.
fn write_some(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(taken) => written += taken,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// Takes the last bytes that were written out of a file again, where nobody has
/// written behind them. `false`: they stand, as in a pipe they have to.
fn take_back(file: &mut File, bytes: u64) -> bool {
    let mut shorten = || -> io::Result<bool> {
        let is_file = file.metadata()?.is_file();
        if !is_file || file.stream_position()? != file.metadata()?.len() {
            return Ok(false);
        }
        let end = file.metadata()?.len().saturating_sub(bytes);
        file.set_len(end)?;
        file.seek(io::SeekFrom::Start(end))?;
        Ok(true)
    };
    shorten().unwrap_or(false)
}

fn is_same(one: &File, other: &File) -> bool {
    let id = |file: &File| file.metadata().map(|file| (file.dev(), file.ino())).ok();
    id(one).is_some() && id(one) == id(other)
}

/// The target, and what has to be written there before the first line.
fn open(settings: &Settings) -> io::Result<(File, Vec<u8>)> {
    let file = open_as_is(settings)?;
    let before = match &settings.target {
        Target::File(path) if ends_in_a_line(path, &file) => b"\n".to_vec(),
        _ => Vec::new(),
    };
    Ok((file, before))
}

/// Who wrote before us may have ended in the middle of a line, on a full disk or
/// by being killed: ours do not continue it. A file that may not be read is taken
/// to be whole.
fn ends_in_a_line(path: &Path, file: &File) -> bool {
    let read = || -> io::Result<bool> {
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() == 0 {
            return Ok(false);
        }
        let mut last = [0];
        let end = metadata.len() - 1;
        // It was opened for reading too where another process did that for us.
        file.read_exact_at(&mut last, end).or_else(|_| {
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(libc::O_NONBLOCK);
            options.open(path)?.read_exact_at(&mut last, end)
        })?;
        Ok(last != *b"\n")
    };
    read().unwrap_or(false)
}

fn open_as_is(settings: &Settings) -> io::Result<File> {
    Ok(match &settings.target {
        Target::Stdout => File::from(io::stdout().as_fd().try_clone_to_owned()?),
        Target::Stderr => File::from(io::stderr().as_fd().try_clone_to_owned()?),
        Target::File(path) => (settings.open)(path)?,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A holder only appends, swaps or truncates: what it leaves is usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
