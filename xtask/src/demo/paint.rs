//! How the demo looks: colours on a terminal, plain text elsewhere and under
//! `NO_COLOR`; figures in a column.

use std::io::IsTerminal;
use std::time::Duration;

/// Prints to the standard output.
pub struct Paint {
    coloured: bool,
}

impl Paint {
    /// Looks where the output goes.
    pub fn new() -> Paint {
        let wanted = std::env::var_os("NO_COLOR").is_none();
        Paint {
            coloured: wanted && std::io::stdout().is_terminal(),
        }
    }

    /// The beginning of an act.
    pub fn title(&self, text: &str) {
        println!("\n{}", self.wrap("1", text));
    }

    /// What a person would type.
    pub fn command(&self, text: &str) {
        println!("{}", self.wrap("36", &format!("$ {text}")));
    }

    /// What came of it, and is well.
    pub fn good(&self, text: &str) {
        println!("{}", self.wrap("32", text));
    }

    /// What came of it, and is not.
    pub fn bad(&self, text: &str) {
        println!("{}", self.wrap("31", text));
    }

    /// A figure.
    pub fn row(&self, what: &str, value: impl ToString) {
        println!("  {what:<42} {}", self.wrap("32", &value.to_string()));
    }

    fn wrap(&self, code: &str, text: &str) -> String {
        if self.coloured {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A time, in the unit that suits it.
pub fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        ..0.001 => format!("{:.0} us", seconds * 1e6),
        ..1.0 => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_the_unit_that_suits_it() {
        for (micros, shown) in [
            (0, "0 us"),
            (47, "47 us"),
            (1_000, "1.0 ms"),
            (312_450, "312.4 ms"),
            (1_020_000, "1.02 s"),
        ] {
            assert_eq!(time(Duration::from_micros(micros)), shown);
        }
    }
}
