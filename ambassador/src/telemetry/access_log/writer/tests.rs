use std::io::{BufRead, BufReader, Read};
use std::rc::Rc;

use tempfile::tempdir;

use super::super::super::guard::Telemetry;
use super::super::super::record::Passage;
use super::super::LineFormat;
use super::*;

fn settings(target: Target, sample: f64) -> Settings {
    Settings {
        target,
        open: |path| OpenOptions::new().append(true).create(true).open(path),
        format: LineFormat::Json,
        sample,
        keep: Keep::default(),
    }
}

fn start(path: &Path, sample: f64) -> AccessLog {
    let settings = settings(Target::File(path.to_owned()), sample);
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
    let scratch = tempdir().unwrap();
    let path = scratch.path().join("log");
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
    let scratch = tempdir().unwrap();
    let path = scratch.path().join("log");
    let log = start(&path, 0.0);
    requests(&log, 100);
    log.finish();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
}

#[test]
fn what_is_to_be_kept_is_logged_whatever_the_sample_says() {
    let scratch = tempdir().unwrap();
    let path = scratch.path().join("log");
    let keep = Keep {
        failed: true,
        ..Keep::default()
    };
    let target = Target::File(path.clone());
    let settings = Settings {
        keep,
        ..settings(target, 0.0)
    };
    let log = AccessLog::start(&settings, Arc::default()).unwrap();
    let telemetry = Rc::new(Telemetry::new(Some(log.sink())));
    for status in [200, 503, 404, 500] {
        let request = telemetry.begin(captured());
        request.status.set(status);
        request.complete(clock::now());
    }
    drop(telemetry);
    log.finish();
    let text = std::fs::read_to_string(&path).unwrap();
    let statuses: Vec<u64> = text
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["status"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(statuses, [503, 500]);
}

#[test]
fn a_line_that_another_began_is_not_continued() {
    let scratch = tempdir().unwrap();
    let path = scratch.path().join("log");
    for (before, kept) in [("{\"time\":\"20", 1), ("{}\n", 1), ("", 0)] {
        std::fs::write(&path, before).unwrap();
        let log = start(&path, 1.0);
        requests(&log, 1);
        log.finish();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), kept + 1, "{text}");
        assert!(
            serde_json::from_str::<serde_json::Value>(lines[kept]).is_ok(),
            "{text}"
        );
    }
}

#[test]
fn reopening_follows_a_rotation() {
    let scratch = tempdir().unwrap();
    let (path, old) = (scratch.path().join("log"), scratch.path().join("log.1"));
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

/// A socket stands for the pipe of a reader that does not wait.
#[test]
fn a_line_that_was_cut_is_finished() {
    use std::os::unix::net::UnixStream;
    let (mut reader, pipe) = UnixStream::pair().unwrap();
    pipe.set_nonblocking(true).unwrap();
    reader.set_nonblocking(true).unwrap();
    let pipe = File::from(std::os::fd::OwnedFd::from(pipe));
    let shared = Arc::new(Shared::default());
    let mut writer = Writer::new(settings(Target::Stdout, 1.0), pipe, Arc::clone(&shared));
    let line = format!("{}\n", "x".repeat(999));
    let (mut batches, mut read) = (0, Vec::new());
    while batches < 8 {
        writer.write(line.repeat(300).as_bytes());
        batches += 1;
        if batches % 2 == 0 {
            // Up to where the pipe is empty.
            let _ = reader.read_to_end(&mut read);
        }
    }
    drop(writer);
    let _ = reader.read_to_end(&mut read);
    let read = String::from_utf8(read).unwrap();
    let cut = usize::from(!read.ends_with('\n'));
    let whole = read.lines().filter(|read| *read == line.trim_end()).count();
    assert_eq!(read.lines().count(), whole + cut);
    let lost = shared.dropped.load(Ordering::Relaxed) as usize;
    assert!(lost > 0, "nothing was cut");
    assert_eq!(whole + lost + cut, batches * 300);
}

#[test]
fn a_reader_that_stalls_costs_lines_not_time() {
    let scratch = tempdir().unwrap();
    let path = scratch.path().join("fifo");
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
