//! The proxy's side of a conversation with a loader.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::loader::{Attach, Job, Proceed, Reply, Request};
use super::programs::Program;
use super::{CaptureError, handoff};
use crate::workload::{Helper, Target};

/// A loader at work. Dropped: it has ended.
#[derive(Debug)]
pub(super) struct Conversation {
    /// Closed first: the loader waits for that.
    socket: Option<OwnedFd>,
    helper: Arc<Helper>,
}

/// What the loader made for one job.
pub(super) struct JobResult {
    pub job: Job,
    /// The names of its links.
    pub links: Vec<String>,
    /// Its canary, where it has one, and its links.
    pub fds: Vec<OwnedFd>,
    pub others: Vec<Program>,
    pub no_v6: Option<String>,
}

/// The guard's links, or why there are none.
pub(super) type Guard = Result<Vec<OwnedFd>, String>;

impl Conversation {
    /// Starts a loader for these targets.
    pub(super) fn start(
        helper: &Arc<Helper>,
        targets: impl Iterator<Item = Target>,
    ) -> Result<Self, CaptureError> {
        let socket = helper
            .start_loader(targets.collect())
            .map_err(CaptureError::Loader)?;
        Ok(Self {
            socket: Some(socket),
            helper: Arc::clone(helper),
        })
    }

    /// Has programs attached that use these maps.
    pub(super) fn attach(
        &self,
        request: Attach,
        maps: &[OwnedFd],
    ) -> Result<Vec<JobResult>, CaptureError> {
        let maps: Vec<BorrowedFd<'_>> = maps.iter().map(AsFd::as_fd).collect();
        let request = Request::Attach(request);
        self.send(&request, &maps)?;
        let (made, _) = self.take_links(request)?;
        Ok(made)
    }

    /// Has programs attached with maps of their own, once `prepare` has filled
    /// those.
    pub(super) fn attach_first<T>(
        &self,
        request: Attach,
        prepare: impl FnOnce(Vec<OwnedFd>) -> Result<T, CaptureError>,
    ) -> Result<(T, Vec<JobResult>, Guard), CaptureError> {
        let request = Request::Attach(request);
        self.send(&request, &[])?;
        let Some((Reply::Maps, maps)) = self.next()? else {
            return Err(unexpected());
        };
        let prepared = prepare(maps)?;
        let socket = self.socket()?;
        handoff::send(socket, &Proceed {}, &[]).map_err(CaptureError::Loader)?;
        let (made, guard) = self.take_links(request)?;
        Ok((prepared, made, guard.ok_or_else(unexpected)?))
    }

    /// Has names given or removed.
    pub(super) fn name(
        &self,
        request: &Request,
        objects: &[BorrowedFd<'_>],
    ) -> Result<(), CaptureError> {
        self.send(request, objects)?;
        match self.next()? {
            Some((Reply::Done, _)) => Ok(()),
            _ => Err(unexpected()),
        }
    }

    /// Takes what the loader makes, to the end of its answer.
    fn take_links(
        &self,
        request: Request,
    ) -> Result<(Vec<JobResult>, Option<Guard>), CaptureError> {
        let mut jobs = match request {
            Request::Attach(request) => request.jobs,
            Request::Pin { .. } | Request::Unpin { .. } => Vec::new(),
        }
        .into_iter();
        let mut made = Vec::new();
        let mut guard = None;
        loop {
            match self.next()?.ok_or_else(unexpected)? {
                (
                    Reply::Attached {
                        links,
                        others,
                        no_v6,
                    },
                    fds,
                ) => made.push(JobResult {
                    job: jobs.next().ok_or_else(unexpected)?,
                    links,
                    fds,
                    others,
                    no_v6,
                }),
                (Reply::Guard { error: None }, links) => guard = Some(Ok(links)),
                (Reply::Guard { error: Some(error) }, _) => guard = Some(Err(error)),
                (Reply::Done, _) => return Ok((made, guard)),
                _ => return Err(unexpected()),
            }
        }
    }

    fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), CaptureError> {
        handoff::send(self.socket()?, request, fds).map_err(CaptureError::Loader)
    }

    /// The next answer of the loader; its failure is an error here.
    fn next(&self) -> Result<Option<(Reply, Vec<OwnedFd>)>, CaptureError> {
        match handoff::receive::<Reply>(self.socket()?).map_err(CaptureError::Loader)? {
            Some((Reply::Failed { what, detail }, _)) => Err(CaptureError::Step { what, detail }),
            other => Ok(other),
        }
    }

    fn socket(&self) -> Result<BorrowedFd<'_>, CaptureError> {
        self.socket.as_ref().map(AsFd::as_fd).ok_or_else(unexpected)
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        drop(self.socket.take());
        // That the helper is gone before its child changes nothing.
        let _ = self.helper.end_loader();
    }
}

pub(super) fn unexpected() -> CaptureError {
    CaptureError::Loader(std::io::Error::other("the loader ended before it was done"))
}
