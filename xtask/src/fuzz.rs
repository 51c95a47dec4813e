//! Runs every fuzz target of `ambassador/fuzz` for its share of the time.
//!
//! The pinned toolchain does: coverage is counted by a pass of LLVM, and what it
//! counts is safe code, which needs no sanitizer. What is found new goes to
//! `target/fuzz/corpus` and is where the next run begins, together with the seeds
//! and what is kept in the repository; an input that breaks something goes to
//! `target/fuzz/artifacts`, and is run again by giving it to the target's binary.

mod corpus;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::workspace::{self, Failure};
use crate::{build, setup};

/// An input that takes longer hangs.
const INPUT_SECONDS: u32 = 5;

/// No input of a peer may cost more memory, the fuzzer's own included.
const MEMORY_MIB: u32 = 512;

/// Longer than any head that passes.
const INPUT_BYTES: u32 = 96 * 1024;

/// What the compiler is to count.
const COVERAGE: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
];

/// The seeds, one directory per target; those of `config` are the examples.
const SEEDS: &str = "ambassador/fuzz/seeds";

/// Builds the targets and runs each, as many at once as there are CPUs, so that
/// all of them take `minutes`. 0: only what is known already.
pub fn run(minutes: u32) -> Result<(), Failure> {
    setup::programs(&[("c++", "g++")])?;
    let targets = targets()?;
    build()?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let seconds = u64::from(minutes) * 60 * cpus as u64 / targets.len() as u64;
    println!(
        "{} targets, {seconds} s each, {cpus} at once",
        targets.len()
    );
    let mut broken = Vec::new();
    for together in targets.chunks(cpus) {
        let mut running = Vec::new();
        for target in together {
            running.push((target, start(target, seconds)?));
        }
        for (target, mut fuzzer) in running {
            let ended = fuzzer.wait();
            println!("{target}: {}", last_figures(target));
            if !ended.is_ok_and(|status| status.success()) {
                broken.push(format!(
                    "{target}: see {} and {}",
                    log(target).display(),
                    place("artifacts", target).display()
                ));
            }
        }
    }
    match broken.is_empty() {
        true => Ok(()),
        false => Err(Failure::Check(broken)),
    }
}

/// Keeps in the repository, of what the runs so far have found, enough to reach
/// every branch that they have reached.
pub fn keep() -> Result<(), Failure> {
    build()?;
    for target in targets()? {
        let (found, merged) = (place("corpus", &target), place("merged", &target));
        if merged.is_dir() {
            fs::remove_dir_all(&merged).map_err(|error| Failure::File(merged.clone(), error))?;
        }
        fs::create_dir_all(&merged).map_err(|error| Failure::File(merged.clone(), error))?;
        let log = log(&target);
        let written = fs::File::create(&log).map_err(|error| Failure::File(log, error))?;
        let mut fuzzer = workspace::command(&binary(&target).display().to_string());
        workspace::run(
            fuzzer
                .args(["-set_cover_merge=1", "-use_counters=0"])
                .arg(format!("-max_len={}", corpus::KEPT_BYTES))
                .args([&merged, &found])
                .stderr(written),
        )?;
        println!("{target}: {} inputs", corpus::pack(&target, &merged)?);
    }
    Ok(())
}

/// The names of the targets, from their files.
fn targets() -> Result<Vec<String>, Failure> {
    let directory = workspace::root().join("ambassador/fuzz/fuzz_targets");
    let failed = |error| Failure::File(directory.clone(), error);
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Some(stem) = path.file_stem() {
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn build() -> Result<(), Failure> {
    workspace::run(
        workspace::command("cargo")
            .args(["build", "--release", "--locked", "--bins"])
            .args(["--manifest-path", "ambassador/fuzz/Cargo.toml"])
            .args(["--target", build::TARGET, "--target-dir"])
            .arg(directory().join("build"))
            .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\u{1f}"))
            // Nothing of what is fuzzed is in the kernel.
            .env_remove(build::OBJECT_VARIABLE),
    )
}

fn start(target: &str, seconds: u64) -> Result<Child, Failure> {
    let (corpus, artifacts) = (place("corpus", target), place("artifacts", target));
    for directory in [&corpus, &artifacts] {
        fs::create_dir_all(directory).map_err(|error| Failure::File(directory.clone(), error))?;
    }
    corpus::unpack(target, &corpus)?;
    let log = log(target);
    let written = fs::File::create(&log).map_err(|error| Failure::File(log.clone(), error))?;
    let mut fuzzer = workspace::command(&binary(target).display().to_string());
    fuzzer.arg(&corpus);
    let seeds = match target {
        "config" => workspace::root().join("examples"),
        target => workspace::root().join(SEEDS).join(target),
    };
    if seeds.is_dir() {
        fuzzer.arg(seeds);
    }
    fuzzer
        .arg(format!("-dict={}", dictionary(target).display()))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(format!("-timeout={INPUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .arg(format!("-max_len={INPUT_BYTES}"))
        .arg("-print_final_stats=1")
        .arg(match seconds {
            0 => "-runs=0".to_owned(),
            seconds => format!("-max_total_time={seconds}"),
        })
        .stdin(Stdio::null())
        .stderr(written);
    fuzzer
        .spawn()
        .map_err(|error| Failure::File(binary(target), error))
}

fn binary(target: &str) -> PathBuf {
    let build = directory().join("build").join(build::TARGET);
    build.join("release").join(target)
}

/// Words that the inputs of a target are made of.
fn dictionary(target: &str) -> PathBuf {
    let own = workspace::root().join(format!("ambassador/fuzz/{target}.dict"));
    match own.is_file() {
        true => own,
        false => workspace::root().join("ambassador/fuzz/http.dict"),
    }
}

/// What a run came to: its last line that says what is covered.
fn last_figures(target: &str) -> String {
    let text = fs::read(log(target)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let last = |word: &str| text.lines().rev().find(|line| line.contains(word));
    let figures = last(" cov: ").unwrap_or("nothing was run").trim();
    figures.trim_start_matches('#').replace('\t', " ")
}

fn directory() -> PathBuf {
    workspace::target_directory().join("fuzz")
}

fn place(kind: &str, target: &str) -> PathBuf {
    directory().join(kind).join(target)
}

fn log(target: &str) -> PathBuf {
    Path::new(&directory()).join(format!("{target}.log"))
}
