//! What an endpoint does wrong.

use std::time::Duration;

use crate::random::Random;

/// One way to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does not listen, and what was open is closed.
    Refuse,
    /// It resets after so many bytes of the response head, perhaps none.
    ResetHead(usize),
    /// It resets after so many bytes of the body.
    ResetBody(usize),
    /// It ends the connection politely after so many bytes of the body.
    CutBody(usize),
    /// It takes the request and answers nothing.
    Hang,
    /// It answers late.
    Slow(Duration),
    /// It answers with this status.
    Status(u16),
    /// It answers with what is no HTTP.
    Garbage,
}

/// A fault, and in how many of a hundred requests it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// What goes wrong.
    pub fault: Fault,
    /// How often.
    pub share: u64,
}

/// What callers may see of an endpoint's fault where another one is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Visible {
    /// A response that ends before its time: its head was on its way to the
    /// caller when the rest was lost.
    pub cut: bool,
    /// 502 `protocol-error`: nobody knows what was done with the request, so it
    /// is not tried again.
    pub protocol_error: bool,
}

impl Trouble {
    /// Any, drawn.
    pub fn draw(random: &mut Random) -> Trouble {
        // Within a head of some 80 bytes, and within most bodies.
        let (in_head, in_body) = (random.below(60) as usize, random.below(1_000) as usize);
        let late = random.between(Duration::from_millis(20), Duration::from_millis(200));
        let fault = random.one_of(&[
            Fault::Refuse,
            Fault::ResetHead(in_head),
            Fault::ResetBody(in_body),
            Fault::CutBody(in_body),
            Fault::Hang,
            Fault::Slow(late),
            Fault::Status(500),
            Fault::Status(503),
            Fault::Garbage,
        ]);
        Trouble {
            fault,
            share: random.one_of(&[30, 100]),
        }
    }

    /// What may be seen of it.
    pub fn visible(&self) -> Visible {
        match self.fault {
            Fault::ResetBody(_) | Fault::CutBody(_) => Visible {
                cut: true,
                protocol_error: false,
            },
            Fault::Garbage => Visible {
                cut: false,
                protocol_error: true,
            },
            _ => Visible::default(),
        }
    }
}
