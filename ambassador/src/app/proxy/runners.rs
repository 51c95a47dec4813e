//! The processes that run commands which print credentials: what they are to run, and
//! what becomes of them.

use std::sync::Arc;

use super::Proxy;
use crate::app::Failure;
use crate::config::Checked;
use crate::control::Remark;
use crate::workload::RunnerNews;

/// What `/readyz` says where no process is left that runs commands.
const ENDED: &str = "the processes that run commands have ended: what commands print is not fetched \
                     any more, until a restart";

/// The commands that print credentials, each once.
pub(crate) fn commands_of(checked: &Checked) -> Vec<Vec<String>> {
    let upstreams = checked.routes.upstreams.iter();
    let auths = upstreams.filter_map(|upstream| upstream.auth.as_ref());
    let mut commands: Vec<Vec<String>> = Vec::new();
    for command in auths.filter_map(|auth| auth.command()) {
        if !commands.contains(command) {
            commands.push(command.clone());
        }
    }
    commands
}

impl Proxy {
    /// Has the commands of a new configuration run as well. Those of the present one go
    /// on, as it may stay; they are forgotten when others come.
    pub(super) fn prepare_commands(&mut self, new: &Checked) -> Result<(), Failure> {
        self.hear_of_runners();
        let mut commands = commands_of(new);
        let present = Arc::clone(&self.state.current().checked);
        for command in commands_of(&present) {
            if !commands.contains(&command) {
                commands.push(command);
            }
        }
        self.commands
            .replace(&commands)
            .map_err(|error| Failure::Unavailable(format!("upstreams.*.auth.bearer.exec: {error}")))
    }

    /// Takes note of those that have ended.
    pub(super) fn hear_of_runners(&mut self) {
        while !self.housekeeping.runners_have_ended
            && let Some(news) = self.commands.news()
        {
            self.state.registry.control.runner_died();
            match news {
                RunnerNews::Replaced => {
                    tracing::warn!("the process that runs commands ended and is replaced");
                }
                RunnerNews::Ended => {
                    tracing::error!("{ENDED}");
                    let readiness = &self.state.readiness;
                    readiness.remark(Remark::Runners, Some(ENDED.to_owned()));
                    self.housekeeping.runners_have_ended = true;
                }
            }
        }
    }
}
