//! `ambassador exec` on a terminal: what is typed and what the terminal sends
//! reach the command as they would without it.

use std::fs;
use std::process::Command;
use std::time::Duration;

use ambassador_tests::proxy::{ambassador, binary};
use ambassador_tests::{Backend, Terminal, eventually, os, program};

const SOON: Duration = Duration::from_secs(10);

/// What is printed is compared: the proxy is to add nothing.
const SILENT: (&str, &str) = ("RUST_LOG", "off");

/// `exec -- sh -c SCRIPT` on a terminal.
fn exec(script: &str) -> Terminal {
    let mut command = ambassador(Backend::Ring);
    command.args(["exec", "--", "sh", "-c", script]);
    Terminal::start(command.env(SILENT.0, SILENT.1))
}

/// The state of a process, a letter as in proc(5).
fn state(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is there");
    let (_, rest) = stat.rsplit_once(") ").expect("proc(5)");
    rest[..1].to_owned()
}

#[test]
fn the_command_has_the_terminal() {
    let mut terminal = exec(
        "for fd in 0 1 2; do test -t $fd && echo terminal; done; \
         ps -o pgid=,tpgid= -p $$; read line; echo \"read: $line\"",
    );
    for _ in 0..3 {
        assert_eq!(terminal.line(), "terminal");
    }
    let groups = terminal.line();
    let groups: Vec<&str> = groups.split_whitespace().collect();
    assert_eq!(groups[0], groups[1], "it is in the foreground");
    terminal.enter("some words\n");
    assert_eq!(terminal.line(), "read: some words");
    assert_eq!(terminal.wait(SOON).code(), Some(0));
}

#[test]
fn ctrl_c_reaches_the_command_once() {
    // A shell would run its trap once for two that come together.
    let script = "import signal\n\
        awaited = [signal.SIGINT, signal.SIGUSR1, signal.SIGTERM]\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, awaited)\n\
        said = {signal.SIGINT: 'interrupt', signal.SIGUSR1: 'other'}\n\
        print('ready', flush=True)\n\
        while (got := signal.sigwait(awaited)) != signal.SIGTERM: print(said[got], flush=True)\n\
        exit(7)\n";
    let mut command = ambassador(Backend::Ring);
    command.args(["exec", "--", program::PYTHON, "-c", script]);
    let mut terminal = Terminal::start(command.env(SILENT.0, SILENT.1));
    assert_eq!(terminal.line(), "ready");
    for _ in 0..10 {
        terminal.enter("\x03");
        assert_eq!(terminal.line(), "interrupt");
        // A second one would be sent on before this, and show before it.
        os::kill(terminal.id(), libc::SIGUSR1).expect("it runs");
        assert_eq!(terminal.line(), "other");
    }
    os::kill(terminal.id(), libc::SIGTERM).expect("it runs");
    assert_eq!(terminal.wait(SOON).code(), Some(7));
}

#[test]
fn the_status_after_ctrl_c_is_what_the_command_made_of_it() {
    let mut handled = exec("trap 'exit 7' INT; echo ready; while :; do sleep 0.05; done");
    assert_eq!(handled.line(), "ready");
    handled.enter("\x03");
    assert_eq!(handled.wait(SOON).code(), Some(7));

    let mut killed = exec("echo ready; exec sleep 60");
    assert_eq!(killed.line(), "ready");
    killed.enter("\x03");
    assert_eq!(killed.wait(SOON).code(), Some(128 + libc::SIGINT));
}

#[test]
fn a_change_of_the_window_reaches_the_command() {
    let mut terminal = exec(
        "trap 'stty size' WINCH; trap 'exit 0' TERM; stty size; \
         while :; do sleep 0.05; done",
    );
    assert_eq!(terminal.line(), "24 80");
    terminal.resize(100, 40);
    assert_eq!(terminal.line(), "40 100");
    os::kill(terminal.id(), libc::SIGTERM).expect("it runs");
    assert_eq!(terminal.wait(SOON).code(), Some(0));
}

#[test]
fn ctrl_z_suspends_it_and_fg_goes_on() {
    let script = "echo $PPID $$; read line; echo \"read: $line\"; exit 9";
    let mut shell = Terminal::start(
        Command::new("sh")
            .arg("-i")
            .env("PS1", "")
            .env("AMBASSADOR_BACKEND", Backend::Ring.name())
            .env(SILENT.0, SILENT.1),
    );
    shell.enter(&format!(
        "{} exec -- sh -c '{script}'\n",
        binary().display()
    ));
    let pids = shell.line();
    let pids: Vec<u32> = pids
        .split(' ')
        .map(|pid| pid.parse().expect("a number"))
        .collect();
    shell.enter("\x1a");
    for &pid in &pids {
        eventually("it is stopped", SOON, || state(pid) == "T");
    }
    // The shell has the terminal back.
    shell.enter("echo back\n");
    while shell.line() != "back" {}
    shell.enter("fg\n");
    for &pid in &pids {
        eventually("it goes on", SOON, || state(pid) != "T");
    }
    shell.enter("some words\n");
    while shell.line() != "read: some words" {}
    shell.enter("echo status $?\n");
    assert_eq!(shell.line(), "status 9");
    shell.enter("exit\n");
    assert!(shell.wait(SOON).success());
}
