//! `ambassador run`: a service.

use std::path::{self, Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use super::proxy::{self, Overrides, Start};
use super::{Failure, unavailable};
use crate::capture::settings::Target;
use crate::cli;
use crate::config::{self, Checked};
use crate::control::{Fingerprint, Signals};
use crate::workload::helper::{Errand, Registration};
use crate::workload::{Helper, User, UserChange};

/// Runs until it is drained.
pub(super) fn run(arguments: cli::Run) -> Result<ExitCode, Failure> {
    let (mut checked, file) = match &arguments.config {
        Some(path) => {
            let loaded = Fingerprint::of(path);
            let checked = config::load(path).map_err(Failure::Config)?;
            (checked.clone(), Some((path.clone(), loaded, checked)))
        }
        None => (from_environment()?, None),
    };
    let warnings = checked.warnings.clone();
    let overrides = with_cgroups(arguments.cgroup);
    overrides(&mut checked);
    let captures = checked
        .capture
        .as_ref()
        .is_some_and(|capture| !capture.targets.is_empty());
    let user = user_change(&checked.user)?;
    let named = proxy::named_files(&checked, arguments.config.as_ref());
    let out_of_reach = user
        .out_of_reach(&named)
        .map_err(unavailable("cannot look at files as another user"))?;
    let errand = match (captures, out_of_reach) {
        (true, _) => Some(Errand::Capture),
        (false, true) => Some(Errand::Files),
        (false, false) => None,
    };
    let helper = errand.map(Helper::start).transpose();
    let helper = helper.map_err(unavailable("cannot start the privileged helper"))?;
    let helper = helper.map(Arc::new);
    if let Some(helper) = &helper {
        register(helper, &checked, arguments.config.as_deref())?;
    }
    let mut proxy = proxy::start(Start {
        checked,
        file,
        overrides,
        user,
        helper: helper.clone(),
        signals: Signals::Handle,
        may_pin: true,
    })?;
    // Behind the line that says what runs here.
    for warning in warnings.lines() {
        tracing::warn!("{warning}");
    }
    proxy.serve();
    proxy.drain();
    if let Some(helper) = helper
        && let Err(error) = helper.finish()
    {
        tracing::warn!(%error, "the privileged helper ended early");
    }
    Ok(ExitCode::SUCCESS)
}

/// Whom `user` means.
pub(super) fn user_change(user: &User) -> Result<UserChange, Failure> {
    UserChange::plan(user).map_err(unavailable("user"))
}

/// Has the helper act on what is captured now, and on what the file names later.
fn register(helper: &Helper, checked: &Checked, file: Option<&Path>) -> Result<(), Failure> {
    let file = file.map(path::absolute).transpose();
    let capture = checked.capture.as_ref();
    let registration = Registration {
        targets: capture.map_or_else(Vec::new, |capture| capture.targets.clone()),
        config: file.map_err(unavailable("cannot name the file"))?,
    };
    let registered = helper.register(&registration);
    registered.map_err(unavailable("what is to be captured cannot be registered"))
}

/// Cgroups of the command line are captured besides those of the file.
fn with_cgroups(cgroups: Vec<PathBuf>) -> Overrides {
    Box::new(move |checked| {
        if cgroups.is_empty() {
            return;
        }
        let capture = checked.capture.get_or_insert_with(Default::default);
        for cgroup in &cgroups {
            let target = Target {
                cgroup: cgroup.clone(),
                netns: None,
            };
            if !capture.targets.contains(&target) {
                capture.targets.push(target);
            }
        }
    })
}

fn from_environment() -> Result<Checked, Failure> {
    match config::from_env(|name| std::env::var(name).ok()) {
        Some(checked) => checked.map_err(Failure::Config),
        None => Err(Failure::Usage(
            "run needs --config FILE, or LISTEN_ADDR, UPSTREAM_HOST and UPSTREAM_PORT".into(),
        )),
    }
}
