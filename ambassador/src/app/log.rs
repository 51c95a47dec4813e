//! The program's own log, on standard error: an event is a line, whoever wrote
//! what it tells.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;

use crate::printable::OneLine;

/// Begins to log; `RUST_LOG` chooses other levels than `level`.
pub(super) fn start(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let colours = match io::stderr().is_terminal() {
        true => Colours::Shown,
        false => Colours::None,
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Events { colours })
        .with_ansi(colours == Colours::Shown)
        .with_target(false)
        .init();
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colours {
    Shown,
    None,
}

/// Takes an event with each write, as the subscriber formats them.
struct Events {
    colours: Colours,
}

impl Write for Events {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        io::stderr().write_all(line(&text, self.colours).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// An event as one line. The colours are the subscriber's own: it escapes what
/// could be mistaken for them in what it formats.
fn line(event: &str, colours: Colours) -> String {
    let event = event.strip_suffix('\n').unwrap_or(event);
    let mut parts = event.split('\u{1b}');
    let mut shown = OneLine(parts.next().unwrap_or_default()).to_string();
    for part in parts {
        let colour = match colours {
            Colours::Shown => colour(part),
            Colours::None => "",
        };
        let escape = if colour.is_empty() {
            "\\u{1b}"
        } else {
            "\u{1b}"
        };
        let rest = OneLine(&part[colour.len()..]);
        shown.push_str(&format!("{escape}{colour}{rest}"));
    }
    shown.push('\n');
    shown
}

/// What follows ESC where that sets a colour: `[1;31m`.
fn colour(text: &str) -> &str {
    let Some(rest) = text.strip_prefix('[') else {
        return "";
    };
    let numbers = rest.find(|c: char| !c.is_ascii_digit() && c != ';');
    match numbers {
        Some(end) if rest[end..].starts_with('m') => &text[..end + 2],
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_and_moves_nothing() {
        let event = "INFO a\nb \u{1b}[2J \u{9b}31m \u{202e} \u{2028}\n";
        let shown = "INFO a\\nb \\u{1b}[2J \\u{9b}31m \\u{202e} \\u{2028}\n";
        assert_eq!(line(event, Colours::None), shown);
        assert_eq!(line(event, Colours::Shown), shown);
    }

    #[test]
    fn colours_stay_where_they_are_shown() {
        let event = "\u{1b}[2;31mERROR\u{1b}[0m x\n";
        assert_eq!(line(event, Colours::Shown), event);
        let plain = line(event, Colours::None);
        assert_eq!(plain, "\\u{1b}[2;31mERROR\\u{1b}[0m x\n");
    }
}
