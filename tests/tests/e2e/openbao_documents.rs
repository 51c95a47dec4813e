//! What the documents tell a user of OpenBao to type.

use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ambassador_tests::proxy::{Scratch, binary};
use ambassador_tests::{Netns, openbao, os};

const CREDENTIALS: &str = include_str!("../../../docs/credentials.md");
const TLS: &str = include_str!("../../../docs/tls.md");

/// Where [`CREDENTIALS`] has the agent write.
const FILES: &str = "/tmp/openbao";

const LIMIT: Duration = Duration::from_secs(50);

/// The server that [`CREDENTIALS`] starts first.
const SERVER: &str = "```sh\nexport PATH";

#[test]
fn credentials_come_as_the_document_says() {
    // What an earlier run has left there would be taken for what the agent writes.
    let _ = std::fs::remove_dir_all(FILES);
    let server = CREDENTIALS.find(SERVER).expect("it begins with a server");
    play(&format!(
        "{}\n{}",
        blocks(&CREDENTIALS[server..], 1),
        blocks(section(CREDENTIALS), usize::MAX)
    ));
    let _ = std::fs::remove_dir_all(FILES);
}

#[test]
fn certificates_come_as_the_document_says() {
    play(&blocks(section(TLS), usize::MAX));
}

/// What stands under the heading.
fn section(document: &str) -> &str {
    let (_, section) = document
        .split_once("\n## With OpenBao or Vault\n")
        .expect("there is such a section");
    section.split("\n## ").next().unwrap_or(section)
}

/// What the first blocks have a shell do; files with their names are written.
fn blocks(text: &str, count: usize) -> String {
    let fences = text.split("```").skip(1).step_by(2);
    fences.take(count).map(commands).collect()
}

fn commands(block: &str) -> String {
    let (info, text) = block.split_once('\n').expect("a block has lines");
    match (info.split(' ').next(), text.strip_prefix("# ")) {
        (Some("sh"), _) => text.to_owned(),
        (Some("yaml"), Some(named)) => {
            let name = named.lines().next().unwrap_or_default();
            format!("cat > {name} <<'END OF FILE'\n{text}END OF FILE\n")
        }
        _ => String::new(),
    }
}

/// Runs this in a network of its own, and ends what it leaves running.
fn play(script: &str) {
    let (scratch, network) = (Scratch::new(), Netns::new());
    let programs = scratch.path().join("programs");
    std::fs::create_dir(&programs).expect("the directory is writable");
    for (name, place) in [("bao", openbao::binary()), ("ambassador", binary())] {
        symlink(place, programs.join(name)).expect("the directory is writable");
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let [nsenter, entered, bash] = network.wrap("bash");
    let said = scratch.file("said", "");
    let script = format!(
        "exec > {said} 2>&1\nset -euxo pipefail\n{script}",
        said = said.display()
    );
    let mut shell = Command::new(nsenter);
    shell
        .args([entered, bash, "-c".into(), script])
        .current_dir(scratch.path())
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("HOME", scratch.path())
        .process_group(0);
    let mut shell = Group(shell.spawn().expect("`cargo xtask setup` installs it"));
    let mut status = None;
    let until = Instant::now() + LIMIT;
    while status.is_none() && Instant::now() < until {
        status = shell.0.try_wait().expect("the child is ours");
        sleep(Duration::from_millis(10));
    }
    let said = std::fs::read_to_string(said).unwrap_or_default();
    let is_good = status.is_some_and(|status| status.success());
    assert!(is_good, "{status:?} within {LIMIT:?}\n{said}");
}

/// A shell and what it has started; ended when dropped.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        for signal in [libc::SIGTERM, libc::SIGKILL] {
            let _ = os::kill_group(self.0.id(), signal);
        }
        let _ = self.0.wait();
    }
}
