//! Tells of the processes that run commands: of each that ends, and of the end of all.

use std::future::pending;
use std::time::Duration;

use super::Surroundings;
use crate::control::{Readiness, Remark};
use crate::telemetry::Registry;
use crate::workload::RunnerNews;

const LOOK_EVERY: Duration = Duration::from_secs(1);

const ENDED: &str = "the processes that run commands have ended: what commands print is not fetched \
                     any more, until a restart";

/// Tells of them for as long as it is polled.
pub(in crate::control) async fn watch(
    surroundings: &Surroundings,
    registry: &Registry,
    readiness: &Readiness,
) {
    let commands = &surroundings.commands;
    while commands.may_end() {
        let Some(news) = commands.news() else {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        };
        registry.control.runner_died();
        match news {
            RunnerNews::Replaced => {
                tracing::warn!("the process that runs commands ended and is replaced");
            }
            RunnerNews::Ended => {
                tracing::error!("{ENDED}");
                readiness.remark(Remark::Runners, Some(ENDED.to_owned()));
                break;
            }
        }
    }
    pending().await
}
