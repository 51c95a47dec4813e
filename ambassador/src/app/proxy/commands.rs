//! Commands that print credentials: what is to be run.

use std::sync::Arc;

use super::Proxy;
use crate::app::Failure;
use crate::config::Checked;

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
    pub(super) fn prepare_commands(&self, new: &Checked) -> Result<(), Failure> {
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
}
