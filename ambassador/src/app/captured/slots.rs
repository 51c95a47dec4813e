//! Slots of the token table: takes unused ones back, and reports when there are
//! none.

use std::fmt;

use super::Captured;
use crate::capture::settings::OnFailure;
use crate::capture::{TokenTable, Verdict};
use crate::clock;
use crate::telemetry::CaptureSlots;

/// Destinations that found no slot, and why.
#[derive(Debug)]
pub(crate) struct Shortage {
    /// Connects that found none because there was none.
    full: u64,
    /// Connects of those who hold as many as are left for others.
    over_quota: u64,
    /// Who holds the most, and how many.
    most: Option<(String, u32)>,
    on_failure: OnFailure,
}

impl Shortage {
    /// Connects that found no slot, so far.
    pub(crate) fn turned_away(&self) -> u64 {
        self.full + self.over_quota
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.on_failure {
            OnFailure::Bypass => "connect straight",
            OnFailure::Refuse => "are refused",
        };
        f.write_str("the token table has no slot for further destinations")?;
        if let Some((cgroup, held)) = &self.most {
            let slots = TokenTable::SLOTS;
            write!(
                f,
                " ({cgroup} holds {held} of {slots}; none gets more than are left)"
            )?;
        }
        let turned_away = self.turned_away();
        write!(
            f,
            ": they {what}, as on_failure says; {turned_away} connects so far"
        )
    }
}

impl Captured {
    /// Takes back slots that nobody uses any more.
    pub(crate) fn take_slots_back(&self) {
        let Some(programs) = self.programs() else {
            return;
        };
        if let Err(error) = programs.take_back(clock::now()) {
            static TOLD: clock::OncePerSecond = clock::OncePerSecond::new();
            if TOLD.is_due() {
                tracing::warn!(%error, "slots of the token table cannot be taken back");
            }
        }
    }

    /// Whether so many slots are taken that somebody may find none: nobody does
    /// while more are left than all hold together.
    pub(crate) fn is_short_of_slots(&self) -> bool {
        let programs = self.programs();
        programs.is_some_and(|programs| programs.table().slots_used() >= TokenTable::SLOTS / 4)
    }

    /// Whether destinations found no slot so far.
    pub(crate) fn shortage(&self) -> Option<Shortage> {
        let programs = self.programs()?;
        let verdicts = programs.verdicts().ok()?;
        let count = |of: Verdict| {
            let count = verdicts.iter().find(|(verdict, _)| *verdict == of);
            count.map_or(0, |(_, count)| *count)
        };
        let (full, over_quota) = (count(Verdict::TableFull), count(Verdict::OverQuota));
        if full + over_quota == 0 {
            return None;
        }
        let now = self.lock();
        let most = programs.holds_most().and_then(|(number, held)| {
            let mut workloads = now.namespaces.workloads();
            let workload = workloads.find(|workload| workload.number == number)?;
            Some((workload.target.cgroup.display().to_string(), held))
        });
        Some(Shortage {
            full,
            over_quota,
            most,
            on_failure: now.settings.on_failure,
        })
    }

    /// Slots of the token table.
    pub(crate) fn slots(&self) -> Option<CaptureSlots> {
        let programs = self.programs()?;
        Some(CaptureSlots {
            used: programs.table().slots_used().into(),
            reclaimed: programs.slots_taken_back(),
        })
    }
}
