//! The access log, as the configuration says it.

use std::sync::Arc;

use crate::app::{Failure, advice, unavailable};
use crate::config::Checked;
use crate::config::checked::{AccessLog as Wanted, LogTarget};
use crate::shard::LogUpdate;
use crate::telemetry::Registry;
use crate::telemetry::access_log::{self, AccessLog};
use crate::workload::named;

/// What a reload makes of it.
pub(super) enum LogChange {
    /// It is the same.
    Same,
    /// It is another one, or there is none.
    To(Option<AccessLog>),
}

impl LogChange {
    /// Opens the one that `new` has and `old` had not. Dropped before it was given
    /// to a shard, it ends; a file that was made for it stays, empty.
    pub(super) fn prepare(
        old: &Checked,
        new: &Checked,
        registry: &Arc<Registry>,
    ) -> Result<Self, Failure> {
        if new.access_log == old.access_log {
            return Ok(Self::Same);
        }
        let open = |log| open_log(log, registry).map_err(advice::named_too_late);
        new.access_log.as_ref().map(open).transpose().map(Self::To)
    }

    /// What it is for one shard.
    pub(super) fn of_shard(&self) -> LogUpdate {
        match self {
            Self::Same => LogUpdate::Same,
            Self::To(log) => LogUpdate::Replaced(log.as_ref().map(AccessLog::sink)),
        }
    }
}

/// Opens it.
pub(super) fn open_log(log: &Wanted, registry: &Arc<Registry>) -> Result<AccessLog, Failure> {
    let settings = access_log::Settings {
        target: match &log.target {
            LogTarget::Stdout => access_log::Target::Stdout,
            LogTarget::Stderr => access_log::Target::Stderr,
            LogTarget::File(path) => access_log::Target::File(path.clone()),
        },
        open: named::append_to,
        format: log.format.clone(),
        sample: log.sample,
        keep: log.keep,
    };
    AccessLog::start(&settings, Arc::clone(registry))
        .map_err(unavailable("cannot open the access log"))
}
