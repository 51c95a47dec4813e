//! Flow control windows (RFC 9113 sections 5.2 and 6.9).

/// The window of a connection at its start, and of streams without SETTINGS.
pub(super) const WINDOW_DEFAULT: u32 = 65_535;

/// No window may be larger (6.9.1).
pub(super) const WINDOW_MAX: u32 = 0x7fff_ffff;

/// A window is given back in so many parts: what waits to be given back is missing on a
/// long line.
const PARTS: u32 = 8;

/// A part is no smaller than a frame is by default (4.2), or half the window.
const PART_MIN: u32 = 16 * 1024;

/// What may still be sent. Below 0 where the peer has made the window smaller
/// than what was sent already (6.9.2).
#[derive(Debug, Clone, Copy)]
pub(super) struct SendWindow(i32);

/// What the peer may still send, and what has been used up of that and is to be
/// given back.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReceiveWindow {
    left: i32,
    credit: u32,
}

/// A window would be larger than any may be, or has been overrun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WindowError;

/// What became of a window that has grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// Nothing could be sent before, and now something can.
    Opened,
    /// As much changed as a number.
    Wider,
}

impl SendWindow {
    /// A window of that size.
    pub(super) const fn new(size: u32) -> Self {
        Self(size as i32)
    }

    /// Bytes that may be sent.
    pub(super) fn available(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// So many have been sent, of those available.
    pub(super) fn take(&mut self, bytes: usize) {
        self.0 -= bytes as i32;
    }

    /// WINDOW_UPDATE.
    pub(super) fn grow(&mut self, increment: u32) -> Result<Growth, WindowError> {
        self.shift(i64::from(increment))
    }

    /// A change of SETTINGS_INITIAL_WINDOW_SIZE moves it in either direction (6.9.2).
    pub(super) fn shift(&mut self, by: i64) -> Result<Growth, WindowError> {
        let was_closed = self.0 <= 0;
        self.0 = i32::try_from(i64::from(self.0) + by).map_err(|_| WindowError)?;
        Ok(match was_closed && self.0 > 0 {
            true => Growth::Opened,
            false => Growth::Wider,
        })
    }
}

impl ReceiveWindow {
    /// A window of that size.
    pub(super) const fn new(size: u32) -> Self {
        Self {
            left: size as i32,
            credit: 0,
        }
    }

    /// So many bytes have come.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), WindowError> {
        let bytes = i32::try_from(bytes).map_err(|_| WindowError)?;
        if bytes > self.left.max(0) {
            return Err(WindowError);
        }
        self.left -= bytes;
        Ok(())
    }

    /// So many bytes are dealt with. The increment that the peer is to be told
    /// of, where that has become a part of a window of `size`.
    pub(super) fn give_back(&mut self, bytes: u32, size: u32) -> Option<u32> {
        self.credit = self.credit.saturating_add(bytes);
        let part = (size / PARTS).max(PART_MIN).min(size / 2);
        if self.credit == 0 || self.credit < part {
            return None;
        }
        let increment = std::mem::take(&mut self.credit);
        self.left = self.left.saturating_add_unsigned(increment);
        Some(increment)
    }

    /// The size that was announced at the start is another one now.
    pub(super) fn shift(&mut self, by: i64) {
        let moved = i64::from(self.left) + by;
        self.left = i32::try_from(moved).unwrap_or(i32::MAX);
    }
}
