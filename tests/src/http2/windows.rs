//! How much a peer takes (RFC 9113, sections 5.2 and 6.9).

use std::collections::HashMap;

use super::{Frame, flag, kind, setting};

/// The window that a connection begins with, and its streams.
const INITIAL: i64 = 65_535;

/// What may be sent.
#[derive(Debug)]
pub struct Windows {
    connection: i64,
    streams: HashMap<u32, i64>,
    initial: i64,
    frame_max: usize,
}

impl Default for Windows {
    fn default() -> Windows {
        Windows {
            connection: INITIAL,
            streams: HashMap::new(),
            initial: INITIAL,
            frame_max: 1 << 14,
        }
    }
}

impl Windows {
    /// A stream begins.
    pub fn open(&mut self, stream: u32) {
        self.streams.insert(stream, self.initial);
    }

    /// A stream is over.
    pub fn close(&mut self, stream: u32) {
        self.streams.remove(&stream);
    }

    /// How much content may go in one frame now.
    pub fn room(&self, stream: u32) -> usize {
        let window = self.streams.get(&stream).copied().unwrap_or_default();
        let room = window.min(self.connection);
        usize::try_from(room)
            .unwrap_or_default()
            .min(self.frame_max)
    }

    /// So much goes.
    pub fn take(&mut self, stream: u32, length: usize) {
        let length = i64::try_from(length).expect("it fits in a window");
        self.connection -= length;
        *self.streams.entry(stream).or_default() -= length;
    }

    /// Takes in what the peer says of itself, and gives the answer that it is owed.
    pub fn learn(&mut self, frame: &Frame) -> Option<Frame> {
        match frame.kind {
            kind::SETTINGS if !frame.has(flag::ACK) => {
                for pair in frame.payload.chunks_exact(6) {
                    let name = u16::from_be_bytes([pair[0], pair[1]]);
                    let value = u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]);
                    self.set(name, value);
                }
                Some(Frame::settings(&[]).ack())
            }
            kind::PING if !frame.has(flag::ACK) => Some(frame.clone().ack()),
            kind::WINDOW_UPDATE => {
                let increment = i64::from(frame.number(0).unwrap_or_default());
                match frame.stream {
                    0 => self.connection += increment,
                    stream => {
                        if let Some(window) = self.streams.get_mut(&stream) {
                            *window += increment;
                        }
                    }
                }
                None
            }
            _ => None,
        }
    }

    fn set(&mut self, name: u16, value: u32) {
        match name {
            setting::INITIAL_WINDOW_SIZE => {
                let change = i64::from(value) - self.initial;
                self.initial += change;
                for window in self.streams.values_mut() {
                    *window += change;
                }
            }
            setting::MAX_FRAME_SIZE => self.frame_max = value as usize,
            _ => {}
        }
    }
}
