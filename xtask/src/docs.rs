//! Runs what the documents tell a reader to type: each shell block of each
//! document, in order, in a clean clone of the last commit.
//!
//! A document runs in one shell and in a network namespace of its own, which
//! has a loopback device and nothing else. A YAML block that begins with
//! `# NAME.yaml` is written to that file and checked, by what earlier blocks
//! have built. What cannot run says why: its info string is `sh no-run: REASON`.

mod blocks;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::docs::blocks::{Block, Kind};
use crate::workspace::{self, Failure};
use crate::{build, setup, test};

/// How long the blocks of one document may take, the build in a clone included.
const DOCUMENT: Duration = Duration::from_secs(15 * 60);

/// How long what a document has started may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// Programs that the documents use, and the Debian package that has each.
const PROGRAMS: [(&str, &str); 5] = [
    ("curl", "curl"),
    ("ip", "iproute2"),
    ("openssl", "openssl"),
    ("python3", "python3"),
    ("unshare", "util-linux"),
];

/// Runs every document.
pub fn run() -> Result<(), Failure> {
    test::require_root()?;
    setup::programs(&PROGRAMS)?;
    let clone = clone()?;
    let documents = documents(&clone)?;
    let (mut ran, mut left_out) = (0, 0);
    for (name, blocks) in documents {
        let runnable = |block: &&Block| block.kind == Kind::Shell;
        let count = blocks.iter().filter(runnable).count();
        ran += count;
        left_out += blocks.iter().filter(|block| block.is_left_out()).count();
        if count > 0 {
            println!("{name}: {count} blocks");
            play(&name, &script(&blocks), &clone)?;
        }
    }
    println!("{ran} shell blocks of the documents run; {left_out} say why they do not");
    Ok(())
}

/// The blocks of every document of a tree, or every mistake in them.
pub fn documents(tree: &Path) -> Result<Vec<(String, Vec<Block>)>, Failure> {
    let mut git = workspace::command("git");
    git.args(["ls-files", "*.md"]).current_dir(tree);
    let listed = workspace::output(&mut git)?;
    let (mut documents, mut mistakes) = (Vec::new(), Vec::new());
    for name in listed.lines() {
        let path = tree.join(name);
        let text = std::fs::read_to_string(&path).map_err(|error| Failure::File(path, error))?;
        match blocks::of(name, &text) {
            Ok(blocks) => documents.push((name.to_owned(), blocks)),
            Err(wrong) => mistakes.extend(wrong),
        }
    }
    match mistakes.is_empty() {
        true => Ok(documents),
        false => Err(Failure::Check(mistakes)),
    }
}

/// A clone of the last commit, always at the same place, with a build directory
/// that outlives it. Not the one of this tree: cargo would take what is built in
/// the clone for what is to be built here.
fn clone() -> Result<PathBuf, Failure> {
    let place = workspace::target_directory().join("docs");
    let (clone, target) = (place.join("clone"), place.join("target"));
    std::fs::create_dir_all(&target).map_err(|error| Failure::File(target.clone(), error))?;
    if clone.exists() {
        std::fs::remove_dir_all(&clone).map_err(|error| Failure::File(clone.clone(), error))?;
    }
    let from = workspace::root();
    let mut git = workspace::command("git");
    git.args(["clone", "--quiet", "--shared"]).arg(from);
    workspace::run(git.arg(&clone))?;
    let link = clone.join("target");
    std::os::unix::fs::symlink(&target, &link).map_err(|error| Failure::File(link, error))?;
    Ok(clone)
}

/// What a shell is to do for a document.
fn script(blocks: &[Block]) -> String {
    let mut script = String::from("set -euo pipefail\nip link set lo up\n");
    for block in blocks {
        let Block { place, kind, text } = block;
        match kind {
            Kind::Shell => {
                script.push_str(&format!("echo '== {place}' >&2\n{text}"));
            }
            Kind::File(name) => {
                script.push_str(&format!(
                    "echo '== {place}: {name}' >&2\ncat > {name} <<'END OF FILE'\n{text}END OF FILE\n\
                     \"$PWD/target/release/ambassador\" check {name}\n"
                ));
            }
            Kind::LeftOut(_) | Kind::Other => {}
        }
    }
    script
}

/// Runs a script to its end, and ends what it has left running.
fn play(name: &str, script: &str, clone: &Path) -> Result<(), Failure> {
    let failed = |outcome: String| Failure::Program {
        line: format!("the shell blocks of {name}"),
        outcome,
    };
    let mut shell = workspace::command("unshare")
        .args(["--net", "bash", "-c", script])
        .current_dir(clone)
        // It says what it builds with; the clone is to find that out itself.
        .env_remove(build::OBJECT_VARIABLE)
        .env_remove("CARGO_TARGET_DIR")
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| failed(format!("could not be started: {error}")))?;
    let status = wait(&mut shell, DOCUMENT);
    end_group(shell.id());
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(failed(format!(
            "ended with {status}; see the last `==` above"
        ))),
        None => {
            // Its group got a signal that nobody can ignore.
            let _ = shell.wait();
            Err(failed(format!("took more than {DOCUMENT:?}")))
        }
    }
}

fn wait(child: &mut Child, limit: Duration) -> Option<std::process::ExitStatus> {
    let until = Instant::now() + limit;
    while Instant::now() < until {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

/// Ends what a shell has left in its process group, politely first: a proxy
/// takes down what it has set up.
fn end_group(group: u32) {
    let signal = |signal: &str| {
        let mut kill = workspace::command("kill");
        kill.args([signal, "--", &format!("-{group}")]);
        kill.stderr(Stdio::null()).status()
    };
    let until = Instant::now() + GRACE;
    // `kill` fails once there is nobody left.
    while signal("-TERM").is_ok_and(|status| status.success()) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    let _ = signal("-KILL");
}
