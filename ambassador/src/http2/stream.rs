//! The state of one stream (RFC 9113 section 5.1).
//!
//! The two directions are independent: `open` of the RFC is both unfinished,
//! `half-closed` is one of them finished, `closed` both. `idle` are streams that
//! no table has yet; `reserved` there is none, as nobody may push.
//!
//! ```text
//!              receive                        send
//!   server     Content -> Finished            Open -> Finished
//!   client     Head -> Content -> Finished    Open -> Finished
//! ```

use crate::http2::error::ErrorCode;
use crate::http2::window::{ReceiveWindow, SendWindow};

/// The number of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl StreamId {
    /// The connection itself.
    pub(crate) const CONNECTION: Self = Self(0);
    /// The largest there is.
    pub(super) const MAX: Self = Self(0x7fff_ffff);

    /// Whether a client may open it. Nothing else opens streams here.
    pub(super) const fn is_of_client(self) -> bool {
        self.0 % 2 == 1
    }
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream<T> {
    pub(super) id: StreamId,
    /// What the user of the connection keeps for it.
    pub(super) user: Option<T>,
    pub(super) receive: ReceiveState,
    pub(super) send: SendState,
    pub(super) receive_window: ReceiveWindow,
    pub(super) send_window: SendWindow,
    /// Bytes of DATA that were given out and not released yet.
    pub(super) unreleased: u32,
    /// Bytes of content that are to come, where `content-length` says so.
    pub(super) length_left: Option<u64>,
    /// A CONNECT has made a tunnel of it: only DATA may come (8.5).
    pub(super) is_tunnel: bool,
}

/// What the peer still sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReceiveState {
    /// The head of the response, after any number of interim ones.
    Head,
    /// DATA, or trailers.
    Content,
    /// Nothing.
    Finished,
}

/// What is still sent to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendState {
    Open,
    Finished,
}

impl<T> Stream<T> {
    /// Whether nothing goes in either direction any more.
    pub(super) fn is_closed(&self) -> bool {
        self.receive == ReceiveState::Finished && self.send == SendState::Finished
    }

    /// Takes in the header of a DATA frame: `content` is what it has without padding.
    ///
    /// # Errors
    /// The stream has to be reset.
    pub(super) fn take_data(&mut self, length: usize, content: usize) -> Result<(), ErrorCode> {
        match self.receive {
            ReceiveState::Head => return Err(ErrorCode::PROTOCOL_ERROR),
            ReceiveState::Content => {}
            ReceiveState::Finished => return Err(ErrorCode::STREAM_CLOSED),
        }
        let taken = self.receive_window.take(length);
        taken.map_err(|_| ErrorCode::FLOW_CONTROL_ERROR)?;
        if let Some(left) = &mut self.length_left {
            let after = left.checked_sub(content as u64);
            *left = after.ok_or(ErrorCode::PROTOCOL_ERROR)?;
        }
        Ok(())
    }

    /// Takes in that the content ends here, where `content-length` allows it (8.1.1).
    ///
    /// # Errors
    /// The stream has to be reset.
    pub(super) fn check_end(&self) -> Result<(), ErrorCode> {
        match self.length_left {
            None | Some(0) => Ok(()),
            Some(_) => Err(ErrorCode::PROTOCOL_ERROR),
        }
    }
}
