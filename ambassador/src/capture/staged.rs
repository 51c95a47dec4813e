//! A prepared change of capture: rules are in the table under the next epoch,
//! links are pinned, programs attached. Committing it is a store, and closes
//! descriptors. Dropping it restores the state before.
//!
//! An attached link works at once: a new cgroup is captured, under the old rules,
//! as soon as its programs are attached. So attaching is the last step that can
//! fail, and of several cgroups all stay attached or none.

use std::os::fd::AsFd;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use super::conversation::{Conversation, JobResult};
use super::in_force::{Attached, InForce, NewAttachment, Pins, StaleRules};
use super::loader::{Job, Request};
use super::rules::{self, Rule};
use super::settings::{Claims, Quic, Settings};
use super::{
    AttachReport, Capture, CaptureError, RULES, SHARED, Workload, attach, bpf, key, pins,
    wants_pins,
};

/// A change that nothing can keep from coming into force.
#[must_use = "dropped, it changes nothing"]
pub struct Staged<'a> {
    capture: &'a Capture,
    in_force: MutexGuard<'a, InForce>,
    plan: CapturePlan,
    /// Written for the next epoch; `None`: the same as those in force.
    rules: Option<Vec<Rule>>,
    attached: Vec<NewAttachment>,
    found: Vec<AttachReport>,
    /// Names in bpffs that were given for this.
    pins: Vec<Pins>,
}

/// What is to be captured, and how.
struct CapturePlan {
    workloads: Vec<Workload>,
    /// QUIC is refused.
    datagrams: bool,
    /// Links outlive the proxy.
    pinned: bool,
}

impl Capture {
    /// Makes a change ready that puts new settings and claims in force for every
    /// later connect in the given cgroups, and lets go of those that are not given
    /// any more. What was captured stays so.
    pub fn stage(
        &self,
        settings: &Settings,
        claims: &Claims,
        workloads: Vec<Workload>,
    ) -> Result<Staged<'_>, CaptureError> {
        let rules = rules::compile(settings, claims).map_err(CaptureError::Rules)?;
        let mut staged = Staged {
            capture: self,
            in_force: self.in_force(),
            plan: CapturePlan {
                workloads,
                datagrams: settings.quic == Quic::Refuse,
                pinned: self.options.may_pin && wants_pins(settings, claims),
            },
            rules: None,
            attached: Vec::new(),
            found: Vec::new(),
            pins: Vec::new(),
        };
        staged.rules = self.stage_rules(&mut staged.in_force, rules)?;
        staged.pin()?;
        staged.attach()?;
        Ok(staged)
    }

    /// Writes rules for the next epoch beside those in force. `None`: they are the
    /// same.
    pub(super) fn stage_rules(
        &self,
        in_force: &mut InForce,
        rules: Vec<Rule>,
    ) -> Result<Option<Vec<Rule>>, CaptureError> {
        let epoch = self.page.epoch().load(Ordering::Relaxed);
        if epoch != 0 && rules == in_force.rules {
            return Ok(None);
        }
        // The table has room for two generations.
        while let Some(stale) = in_force.stale.last() {
            self.remove(stale)?;
            in_force.stale.pop();
        }
        let map = self.maps[RULES].as_fd();
        for (written, rule) in rules.iter().enumerate() {
            if let Err(error) = bpf::write(map, &key(rule, epoch + 1), &rule.value) {
                self.drop_rules(in_force, rules[..written].to_vec());
                return Err(CaptureError::Map(error));
            }
        }
        Ok(Some(rules))
    }

    /// Turns the epoch to rules that were written for it, in one store.
    pub(super) fn turn_to(&self, in_force: &mut InForce, rules: Vec<Rule>) {
        let epoch = self.page.epoch().load(Ordering::Relaxed);
        self.page.epoch().store(epoch + 1, Ordering::Release);
        // A program that has just read the old epoch may still be looking for them.
        in_force.stale.push(StaleRules {
            epoch,
            rules: std::mem::replace(&mut in_force.rules, rules),
        });
    }

    /// Takes back what was written for the next epoch.
    fn drop_rules(&self, in_force: &mut InForce, rules: Vec<Rule>) {
        let epoch = self.page.epoch().load(Ordering::Relaxed) + 1;
        let stale = StaleRules { epoch, rules };
        if let Err(error) = self.remove(&stale) {
            tracing::warn!(%error, "cannot remove old rules from the kernel's table yet");
            in_force.stale.push(stale);
        }
    }

    fn remove(&self, stale: &StaleRules) -> Result<(), CaptureError> {
        let map = self.maps[RULES].as_fd();
        for rule in &stale.rules {
            bpf::remove(map, &key(rule, stale.epoch)).map_err(CaptureError::Map)?;
        }
        Ok(())
    }

    /// Has the links of workloads outlive this process.
    fn pin(&self, attached: &[Attached]) -> Result<(), CaptureError> {
        let targets = attached.iter().map(|attached| &attached.workload.target);
        let conversation = Conversation::start(&self.helper, targets.cloned())?;
        for attached in attached {
            let mut names = vec![pins::PAGE.to_owned()];
            let mut objects = vec![self.maps[SHARED].as_fd()];
            for (name, link) in &attached.links {
                names.push(name.clone());
                objects.push(link.as_fd());
            }
            let cgroup_id = attached.cgroup_id;
            conversation.name(&Request::Pin { cgroup_id, names }, &objects)?;
        }
        Ok(())
    }

    /// Removes names of links, as far as it can.
    fn unpin(&self, pins: Vec<Pins>) {
        if let Err(error) = self.try_to_unpin(pins) {
            tracing::warn!(%error, "cannot remove names of old links from bpffs");
        }
    }

    fn try_to_unpin(&self, pins: Vec<Pins>) -> Result<(), CaptureError> {
        if pins.is_empty() {
            return Ok(());
        }
        let targets = pins.iter().map(|pins| pins.target.clone());
        let conversation = Conversation::start(&self.helper, targets)?;
        for Pins {
            cgroup_id, names, ..
        } in pins
        {
            conversation.name(&Request::Unpin { cgroup_id, names }, &[])?;
        }
        Ok(())
    }
}

impl Staged<'_> {
    /// Puts it in force.
    pub fn commit(mut self) -> Vec<AttachReport> {
        if let Some(rules) = self.rules.take() {
            self.capture.turn_to(&mut self.in_force, rules);
        }
        self.pins.clear();
        for fresh in std::mem::take(&mut self.attached) {
            self.in_force.add(fresh);
        }
        let CapturePlan {
            workloads,
            datagrams,
            pinned,
        } = &self.plan;
        let unpinned = self.in_force.let_go(workloads, *datagrams, *pinned);
        self.in_force.pinned = *pinned;
        self.capture.unpin(unpinned);
        std::mem::take(&mut self.found)
    }

    /// Before anything is attached: were it to fail after links were pinned that
    /// nobody keeps, their cgroups would be cut off.
    fn pin(&mut self) -> Result<(), CaptureError> {
        if self.plan.pinned && !self.in_force.pinned {
            let attached = &self.in_force.attached;
            self.pins.extend(attached.iter().map(Attached::all_pins));
            self.capture.pin(attached)?;
        }
        Ok(())
    }

    fn attach(&mut self) -> Result<(), CaptureError> {
        let CapturePlan {
            workloads,
            datagrams,
            pinned,
        } = &self.plan;
        let jobs: Vec<Job> = workloads
            .iter()
            .filter_map(|workload| {
                let share = self.capture.reclaim().assigned.assign(workload.number);
                self.in_force.job(workload, *datagrams, share)
            })
            .collect();
        if jobs.is_empty() {
            return Ok(());
        }
        let targets = jobs.iter().map(|job| job.workload.target.clone());
        let conversation = Conversation::start(&self.capture.helper, targets)?;
        let request = attach(jobs, &self.capture.options, *pinned);
        let made = conversation.attach(request, &self.capture.maps)?;
        // All of it, so that all of it is undone.
        let taken = made.into_iter().map(|made| self.take(made));
        taken.fold(Ok(()), Result::and)
    }

    fn take(&mut self, made: JobResult) -> Result<(), CaptureError> {
        let (fresh, found) = NewAttachment::of(made)?;
        if self.plan.pinned {
            self.pins.push(fresh.pins());
        }
        self.attached.push(fresh);
        self.found.extend(found);
        Ok(())
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if let Some(rules) = self.rules.take() {
            self.capture.drop_rules(&mut self.in_force, rules);
        }
        // Links that no name holds are closed with their descriptors.
        self.capture.unpin(std::mem::take(&mut self.pins));
    }
}
