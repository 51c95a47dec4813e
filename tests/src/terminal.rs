//! A terminal with somebody at its keyboard.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::os;
use crate::program::Running;

/// No program of a test is silent for longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A pseudo-terminal and the program that was started on it.
pub struct Terminal {
    keyboard: File,
    /// The end of the programs, for its settings.
    device: File,
    shown: Receiver<Vec<u8>>,
    unread: String,
    program: Running,
}

impl Terminal {
    /// Starts `command` as the leader of a new session on a new terminal, which
    /// has 80 columns and 24 rows and shows nothing of what is typed.
    #[track_caller]
    pub fn start(command: &Command) -> Terminal {
        let (keyboard, device) = os::open_terminal().expect("terminals are left");
        set(&device, &["-echo", "cols", "80", "rows", "24"]);
        let end = || Stdio::from(device.try_clone().expect("descriptors are left"));
        let mut session = Command::new("setsid");
        session
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            session.env(name, value.unwrap_or_default());
        }
        let program = Running::start(session.stdin(end()).stdout(end()).stderr(end()));
        let mut screen = keyboard.try_clone().expect("descriptors are left");
        let (show, shown) = channel();
        // Ends with the test, or when no program is left on the terminal.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                if show.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal {
            keyboard,
            device,
            shown,
            unread: String::new(),
            program,
        }
    }

    /// The process id of the program.
    pub fn id(&self) -> u32 {
        self.program.id()
    }

    /// Types `text`; `\x03` is Ctrl-C, `\x1a` Ctrl-Z.
    pub fn enter(&mut self, text: &str) {
        self.keyboard
            .write_all(text.as_bytes())
            .expect("the terminal takes it");
    }

    /// Changes the size of the window.
    pub fn resize(&self, columns: u16, rows: u16) {
        set(
            &self.device,
            &["cols", &columns.to_string(), "rows", &rows.to_string()],
        );
    }

    /// The next line that a program wrote, without its end.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((line, rest)) = self.unread.split_once("\r\n") {
                let line = line.to_owned();
                self.unread = rest.to_owned();
                return line;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.shown.recv_timeout(left) {
                Ok(bytes) => self.unread.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("no line, but {:?}: {error}", self.unread),
            }
        }
    }

    /// Waits for the end of the program; panics after `limit`.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        self.program.wait(limit)
    }
}

/// Changes settings of a terminal.
#[track_caller]
fn set(device: &File, settings: &[&str]) {
    let device = device.try_clone().expect("descriptors are left");
    let status = Command::new("stty").args(settings).stdin(device).status();
    assert!(status.expect("stty runs").success(), "stty {settings:?}");
}
