//! The journal of a worker: what it learns after the seal, sent to its keeper, so
//! that the next worker knows it too.
//!
//! An entry is sent before the question is answered, and read even if its sender
//! has died since. Both sides have the same privileges, so the reader does not
//! check again what the writer has checked.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::serve::Serving;
use super::undo::Step;
use crate::workload::{Netns, Target, descriptors};

/// One datagram; the descriptors of each are named.
#[derive(Debug, Serialize, Deserialize)]
enum Fact {
    /// The configuration names it by now.
    Target(Target),
    /// With a namespace: that of a target.
    Namespace,
    /// With a namespace: iptables rules are to be removed.
    Iptables,
    /// With a namespace: so is the route of the IPv6 tokens.
    TokenPrefix(u16),
    /// [process of each]: the loaders at work.
    Loaders,
}

/// How much was known at some time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    targets: usize,
    namespaces: usize,
    steps: usize,
}

impl Mark {
    pub(super) fn of(serving: &Serving) -> Self {
        Self {
            targets: serving.registry.targets().len(),
            namespaces: serving.registry.namespaces().len(),
            steps: serving.steps.list().len(),
        }
    }

    /// Sends what is new since.
    pub(super) fn tell(self, serving: &Serving, line: BorrowedFd<'_>) -> io::Result<()> {
        for target in &serving.registry.targets()[self.targets..] {
            send(line, &Fact::Target(target.clone()), &[])?;
        }
        for netns in &serving.registry.namespaces()[self.namespaces..] {
            send(line, &Fact::Namespace, &[netns.as_fd()])?;
        }
        for step in &serving.steps.list()[self.steps..] {
            match step {
                Step::Iptables(netns) => send(line, &Fact::Iptables, &[netns.as_fd()])?,
                Step::TokenPrefix(netns, port) => {
                    send(line, &Fact::TokenPrefix(*port), &[netns.as_fd()])?;
                }
                // There is none after the seal.
                Step::Cgroup(_) | Step::AdminDirectory(_) => {}
            }
        }
        Ok(())
    }
}

/// Sends which loaders there are.
pub(super) fn tell_loaders(serving: &Serving, line: BorrowedFd<'_>) -> io::Result<()> {
    send(line, &Fact::Loaders, &serving.loaders.as_fds())
}

fn send(line: BorrowedFd<'_>, fact: &Fact, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    descriptors::send(line, &serde_json::to_vec(fact)?, fds)
}

/// Takes note of what a worker has sent.
pub(super) fn learn(serving: &mut Serving, text: &[u8], fds: Vec<OwnedFd>) -> io::Result<()> {
    let fact: Fact = serde_json::from_slice(text)?;
    if let Fact::Loaders = fact {
        serving.loaders.replace(fds);
        return Ok(());
    }
    let mut fds = fds.into_iter();
    let mut netns = || Netns::from_fd(fds.next().ok_or(io::ErrorKind::InvalidInput)?);
    match fact {
        Fact::Target(target) => serving.registry.learn(target),
        Fact::Namespace => serving.registry.know(&netns()?)?,
        Fact::Iptables => serving.steps.iptables(netns()?),
        Fact::TokenPrefix(port) => serving.steps.token_prefix(netns()?, port),
        Fact::Loaders => {}
    }
    Ok(())
}
