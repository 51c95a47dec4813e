//! Tells whoever waits at standard output which part of the run counts: what a
//! proxy does before and after is then no part of what it does for a request.

use std::io::Write;

use super::open_loop::Moment;
use super::tally::Window;

/// What is to be said next, and from when on; none: nothing any more.
pub struct Announcement(Option<(Moment, &'static str)>);

impl Announcement {
    /// Nothing is said where it is not `wanted`.
    pub fn new(wanted: bool, window: Window) -> Self {
        Self(wanted.then_some((window.begin, BEGIN)))
    }

    /// When there is something to say.
    pub fn due(&self) -> Option<Moment> {
        self.0.map(|(due, _)| due)
    }

    /// Says what is due by `now`. That nobody listens is no reason to fail.
    pub fn make(&mut self, window: Window, now: Moment) {
        while let Some((due, word)) = self.0
            && due <= now
        {
            let mut stdout = std::io::stdout();
            let _ = writeln!(stdout, "{word}").and_then(|()| stdout.flush());
            self.0 = (word == BEGIN).then_some((window.end, END));
        }
    }
}

const BEGIN: &str = "begin";
const END: &str = "end";
