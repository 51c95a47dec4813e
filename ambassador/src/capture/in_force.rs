//! The state of capture: the rules, and the programs attached for each workload.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use super::conversation::{JobResult, unexpected};
use super::loader::Job;
use super::rules::Rule;
use super::{AttachReport, CaptureError, Workload};
use crate::workload::Target;

/// The programs that refuse QUIC.
const SENDMSG: [&str; 2] = ["sendmsg4", "sendmsg6"];

/// What an update changes.
#[derive(Debug, Default)]
pub(super) struct InForce {
    pub rules: Vec<Rule>,
    /// Rules that are to leave the table before others are written.
    pub stale: Vec<StaleRules>,
    pub attached: Vec<Attached>,
    pub pinned: bool,
}

/// Rules of an epoch that is not that of now.
#[derive(Debug)]
pub(super) struct StaleRules {
    pub epoch: u32,
    pub rules: Vec<Rule>,
}

/// What the path of a workload names, next to what programs are attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The same cgroup.
    Here,
    /// None.
    Gone,
    /// Another one.
    MadeAnew,
}

/// Names in bpffs that links of a workload have.
#[derive(Debug)]
pub(super) struct Pins {
    pub target: Target,
    pub cgroup_id: u64,
    /// Which; all of the cgroup where none is given.
    pub names: Vec<String>,
}

/// One workload's share.
#[derive(Debug)]
pub(super) struct Attached {
    pub workload: Workload,
    pub cgroup_id: u64,
    pub canary: Arc<OwnedFd>,
    /// By name. Held for their effect: a link detaches when its last holder
    /// lets go.
    pub links: Vec<(String, OwnedFd)>,
}

/// What the loader made for one job.
pub(super) enum NewAttachment {
    /// All of a workload.
    Workload(Attached),
    /// Further links of one that has some.
    Links {
        workload: Workload,
        cgroup_id: u64,
        links: Vec<(String, OwnedFd)>,
    },
}

impl NewAttachment {
    /// Takes it from the loader's answer.
    pub(super) fn of(made: JobResult) -> Result<(Self, Option<AttachReport>), CaptureError> {
        let workload = made.job.workload;
        let cgroup_id = cgroup_id(&workload).ok_or_else(unexpected)?;
        let mut fds = made.fds.into_iter();
        let names = made.links.into_iter();
        if !made.job.connects {
            let links = names.zip(fds).collect();
            let fresh = Self::Links {
                workload,
                cgroup_id,
                links,
            };
            return Ok((fresh, None));
        }
        let found = AttachReport {
            cgroup: workload.target.cgroup.clone(),
            others: made.others,
            no_v6: made.no_v6,
        };
        let canary = fds.next().ok_or_else(unexpected)?;
        let attached = Attached {
            workload,
            cgroup_id,
            canary: Arc::new(canary),
            links: names.zip(fds).collect(),
        };
        Ok((Self::Workload(attached), Some(found)))
    }

    /// The names that its links have, where they are pinned.
    pub(super) fn pins(&self) -> Pins {
        match self {
            Self::Workload(attached) => attached.all_pins(),
            Self::Links {
                workload,
                cgroup_id,
                links,
            } => Pins {
                target: workload.target.clone(),
                cgroup_id: *cgroup_id,
                names: links.iter().map(|(name, _)| name.clone()).collect(),
            },
        }
    }
}

impl InForce {
    /// Whether programs are attached for a workload.
    pub(super) fn has(&self, number: u32) -> bool {
        let mut attached = self.attached.iter();
        attached.any(|attached| attached.workload.number == number)
    }

    fn find(&mut self, number: u32) -> Option<&mut Attached> {
        let mut attached = self.attached.iter_mut();
        attached.find(|attached| attached.workload.number == number)
    }

    /// What a workload lacks. One whose cgroup was removed and made anew has
    /// nothing; one whose cgroup is gone needs nothing.
    pub(super) fn job(&mut self, workload: &Workload, datagrams: bool, share: u32) -> Option<Job> {
        let current = cgroup_id(workload);
        let known = self
            .find(workload.number)
            .filter(|attached| current.is_none_or(|id| id == attached.cgroup_id));
        let connects = known.is_none();
        let datagrams = datagrams && known.is_none_or(|attached| !attached.refuses_quic());
        (connects || datagrams).then(|| Job {
            workload: workload.clone(),
            share,
            connects,
            datagrams,
        })
    }

    /// Takes what was attached.
    pub(super) fn add(&mut self, fresh: NewAttachment) {
        match fresh {
            NewAttachment::Workload(new) => {
                let number = new.workload.number;
                self.attached
                    .retain(|attached| attached.workload.number != number);
                self.attached.push(new);
            }
            NewAttachment::Links {
                workload, links, ..
            } => {
                if let Some(attached) = self.find(workload.number) {
                    attached.links.extend(links);
                }
            }
        }
    }

    /// Detaches what is not wanted any more. Returns the pins to remove.
    pub(super) fn let_go(
        &mut self,
        workloads: &[Workload],
        datagrams: bool,
        pinned: bool,
    ) -> Vec<Pins> {
        let was_pinned = self.pinned;
        let mut unpinned = Vec::new();
        self.attached.retain_mut(|attached| {
            let wanted = workloads.contains(&attached.workload);
            if !wanted || !pinned {
                unpinned.push(attached.all_pins());
            } else if !datagrams && attached.refuses_quic() {
                unpinned.push(Pins {
                    names: SENDMSG.map(str::to_owned).to_vec(),
                    ..attached.all_pins()
                });
            }
            if !datagrams {
                let links = &mut attached.links;
                links.retain(|(name, _)| !SENDMSG.contains(&name.as_str()));
            }
            wanted
        });
        if !was_pinned {
            unpinned.clear();
        }
        unpinned
    }
}

/// The id of the cgroup that a workload's path names now; none where it names
/// none.
fn cgroup_id(workload: &Workload) -> Option<u64> {
    let metadata = workload.target.cgroup.metadata();
    metadata.map(|metadata| metadata.ino()).ok()
}

impl Attached {
    /// What its path names now.
    pub(super) fn place(&self) -> Place {
        match cgroup_id(&self.workload) {
            None => Place::Gone,
            Some(id) if id == self.cgroup_id => Place::Here,
            Some(_) => Place::MadeAnew,
        }
    }

    /// The names of all its links.
    pub(super) fn all_pins(&self) -> Pins {
        Pins {
            target: self.workload.target.clone(),
            cgroup_id: self.cgroup_id,
            names: Vec::new(),
        }
    }

    fn refuses_quic(&self) -> bool {
        let mut names = self.links.iter().map(|(name, _)| name.as_str());
        names.any(|name| SENDMSG.contains(&name))
    }
}
