//! Bytes that are being handed over to a connection, whatever it speaks.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::ring::SendError;
use crate::{multiplex, transport};

/// Bytes that are being handed over to a connection.
pub(crate) enum Post<'a> {
    /// They go over a connection of their own.
    Http1(transport::Sending<'a>),
    /// They go over a stream.
    Http2(multiplex::Sending<'a>),
}

impl Future for Post<'_> {
    type Output = Result<(), SendError>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Http1(sending) => Pin::new(sending).poll(context),
            Self::Http2(sending) => Pin::new(sending).poll(context),
        }
    }
}
