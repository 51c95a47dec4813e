//! Real commands in real cgroups. The name of a cgroup holds our pid, so the
//! tests take turns.

use std::fs;

use super::*;
use crate::workload::capabilities;
use crate::workload::cgroup::EXEC_PREFIX;
use crate::workload::helper::tests::{on_a_thread, turn};

fn sh(script: &str) -> Command {
    Command {
        program: "sh".into(),
        arguments: vec!["-c".into(), script.into()],
    }
}

/// On a thread of its own, whose signal mask it changes.
fn run(command: &Command) -> (Outcome, std::path::PathBuf) {
    let run = |helper: &Helper| {
        let mut launched = Launched::prepare(command, helper).unwrap();
        let path = launched.cgroup().to_owned();
        launched.release().unwrap();
        (launched.wait(helper).unwrap(), path)
    };
    std::thread::scope(|scope| scope.spawn(|| with_helper(run)).join().unwrap())
}

/// The helper has undone all before this returns: the next cgroup has the same
/// name.
fn with_helper<T>(work: impl FnOnce(&Helper) -> T) -> T {
    let (helper, served) = on_a_thread();
    let result = work(&helper);
    drop(helper);
    served.join().unwrap().unwrap();
    result
}

#[test]
fn the_exit_code_is_the_commands_own() {
    let _turn = turn();
    for (command, code) in [
        (sh("exit 0"), 0),
        (sh("exit 42"), 42),
        (sh("kill -TERM $$"), 128 + 15),
        (
            Command {
                program: "no-such-command-here".into(),
                arguments: vec![],
            },
            127,
        ),
        (
            Command {
                program: "/etc/passwd".into(),
                arguments: vec![],
            },
            126,
        ),
    ] {
        let (outcome, path) = run(&command);
        assert_eq!(outcome.code(), code, "{command:?}: {outcome:?}");
        assert!(!path.exists());
    }
}

#[test]
fn the_command_starts_inside_its_cgroup_and_not_before_its_release() {
    let _turn = turn();
    let output = std::env::temp_dir().join(format!("amb-B-exec-{}", std::process::id()));
    let script = format!("grep ^0:: /proc/self/cgroup > {}", output.display());
    with_helper(|helper| {
        let mut launched = Launched::prepare(&sh(&script), helper).unwrap();
        assert_eq!(
            launched.cgroup.processes().unwrap(),
            [launched.process_id()]
        );
        let name = fs::read_to_string(format!("/proc/{}/comm", launched.process_id())).unwrap();
        assert_ne!(name.trim(), "sh");
        assert!(!output.exists());
        launched.release().unwrap();
        assert_eq!(launched.wait(helper).unwrap().code(), 0);
    });
    let group = fs::read_to_string(&output).unwrap();
    fs::remove_file(&output).unwrap();
    assert!(
        group
            .trim()
            .ends_with(&format!("{EXEC_PREFIX}{}", std::process::id())),
        "{group}"
    );
}

#[test]
fn a_command_that_is_never_released_is_gone_with_its_cgroup() {
    let _turn = turn();
    let (path, pid) = with_helper(|helper| {
        let launched = Launched::prepare(&sh("exit 0"), helper).unwrap();
        (launched.cgroup().to_owned(), launched.process_id())
    });
    assert!(!path.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn it_waits_for_what_the_command_left_running() {
    let _turn = turn();
    let started = std::time::Instant::now();
    // A daemon in a session of its own, that holds none of our streams.
    let (outcome, path) = run(&sh(
        "setsid sleep 0.4 < /dev/null > /dev/null 2>&1 & exit 3",
    ));
    assert_eq!(outcome.code(), 3);
    assert!(started.elapsed() >= std::time::Duration::from_millis(400));
    assert!(!path.exists());
}

/// Runs a command on a thread and hands `meanwhile` its process and the means
/// to send that thread a signal, as one sent to the whole process would reach
/// it in a program whose other threads block it.
#[expect(unsafe_code, reason = "std cannot signal a thread")]
fn run_with_signals(command: &Command, meanwhile: impl FnOnce(i32, &dyn Fn(i32))) -> Outcome {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            with_helper(|helper| {
                let mut launched = Launched::prepare(command, helper).unwrap();
                // SAFETY: gettid reads a number.
                tell.send((launched.process_id(), unsafe { libc::gettid() }))
                    .unwrap();
                launched.release().unwrap();
                // The helper, on a thread of its own, keeps what we give up.
                capabilities::keep_only(&[]).unwrap();
                launched.wait(helper).unwrap()
            })
        });
        let (process, thread) = told.recv().unwrap();
        let send = |number: i32| {
            let own = std::process::id() as i32;
            // SAFETY: tgkill touches no memory; the thread is alive, or it
            // fails.
            unsafe { libc::syscall(libc::SYS_tgkill, own, thread, number) };
        };
        meanwhile(process, &send);
        waiting.join().unwrap()
    })
}

/// A FIFO by which a command says that it has come so far.
struct Ready(std::path::PathBuf);

impl Ready {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("amb-B-{name}-{}", std::process::id()));
        let made = std::process::Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap();
        assert!(made.success());
        Self(path)
    }

    fn wait(&self) {
        assert_eq!(fs::read_to_string(&self.0).unwrap(), "ready\n");
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_signal_reaches_the_command_which_decides() {
    let _turn = turn();
    let ready = Ready::new("forwarded");
    let loop_forever = "while :; do sleep 0.05; done";
    let script = format!(
        "trap 'exit 9' USR1; echo ready > {}; {loop_forever}",
        ready.0.display()
    );
    let outcome = run_with_signals(&sh(&script), |_, send| {
        ready.wait();
        send(libc::SIGUSR1);
    });
    assert_eq!(outcome.code(), 9);
}

#[test]
fn after_the_command_a_signal_reaches_what_it_left() {
    let _turn = turn();
    let ready = Ready::new("left");
    let leaving = "setsid sleep 600 < /dev/null > /dev/null 2>&1 &";
    let script = format!("{leaving} echo ready > {}; exit 4", ready.0.display());
    let outcome = run_with_signals(&sh(&script), |process, send| {
        ready.wait();
        // It is reaped by the one who waits.
        while Path::new(&format!("/proc/{process}")).exists() {
            std::thread::yield_now();
        }
        send(libc::SIGTERM);
    });
    assert_eq!(outcome.code(), 4);
}

#[test]
fn a_command_of_another_user_gets_its_signals_too() {
    let _turn = turn();
    let ready = Ready::new("other");
    let loop_forever = "while :; do sleep 0.05; done";
    let inner = format!("trap \"exit 6\" TERM; echo ready >&3; exec 3>&-; {loop_forever}");
    let become_nobody = "exec setpriv --reuid 65534 --clear-groups";
    let script = format!(
        "exec 3> {}; {become_nobody} sh -c '{inner}'",
        ready.0.display()
    );
    let outcome = run_with_signals(&sh(&script), |_, send| {
        ready.wait();
        send(libc::SIGTERM);
    });
    assert_eq!(outcome.code(), 6);
}
