//! `ambassador exec`: one command, captured.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::proxy::{self, Overrides, Start};
use super::run::user_change;
use super::{Failure, unavailable, with_causes};
use crate::addr::BindAddr;
use crate::capture::settings::{Settings, Target};
use crate::cli;
use crate::clock;
use crate::config::{self, Checked};
use crate::control::{Fingerprint, Signals};
use crate::exec::{Command, LaunchError, Launched, Outcome};
use crate::policy::fault;
use crate::printable::Lines;
use crate::workload::Helper;
use crate::workload::cgroup::EXEC_PREFIX;
use crate::workload::helper::{ADMIN_SOCKET, Errand, Registration};
use crate::workload::temporary::Base;

/// What remains when every program in the cgroup has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What `exec` does without a file.
const WITHOUT_FILE: &str = "capture: { unmatched: adopt }";

/// Runs the command to its end; its exit status is ours.
pub(super) fn run(arguments: cli::Exec) -> Result<ExitCode, Failure> {
    let file = arguments.config.as_deref().map(read).transpose()?;
    let mut checked = match &file {
        Some((.., checked)) => checked.clone(),
        None => config::load_str("built in", WITHOUT_FILE).map_err(Failure::Config)?,
    };
    let fault = arguments.fault.as_deref().map(|spec| {
        let only_for = arguments.fault_for.as_deref();
        config::fault::from_words(spec, only_for).map_err(Failure::Usage)
    });
    let flags = PolicyFlags {
        observe: arguments.observe,
        fault: fault.transpose()?,
    };
    let mut words = arguments.command.into_iter();
    let program = words
        .next()
        .ok_or_else(|| Failure::Usage("exec needs a command".into()))?;
    let name = program.to_string_lossy().into_owned();
    let command = Command {
        program,
        arguments: words.collect(),
    };
    let user = user_change(&checked.user)?;
    let helper = Arc::new(
        Helper::start(Errand::Capture)
            .map_err(unavailable("cannot start the privileged helper"))?,
    );
    let mut launched = prepare(&command, &helper)?;
    let directory = admin_directory(&helper)?;
    let admin = directory.join(ADMIN_SOCKET);
    let overrides = only(launched.cgroup().to_owned(), admin, flags);
    overrides(&mut checked);
    let mut proxy = proxy::start(Start {
        checked,
        file,
        overrides,
        user,
        helper: Some(Arc::clone(&helper)),
        signals: Signals::Leave,
        may_pin: false,
    })?;
    launched
        .release()
        .map_err(unavailable("the command's process is gone"))?;
    let outcome = launched
        .wait(&helper)
        .map_err(unavailable("cannot wait for the command"))?;
    if let Outcome::NotRun(error) = &outcome {
        let why = format!("ambassador: {name}: {}", with_causes(error));
        eprintln!("{}", Lines(&why));
    }
    proxy.handle_pending();
    // Whoever could connect or ask has ended.
    let sum = proxy.finish(clock::now() + LAST_WORDS, Duration::ZERO);
    if arguments.summary {
        match &outcome {
            Outcome::NotRun(_) => eprintln!("no call to sum up: the command did not run"),
            _ => eprint!("{}", Lines(&proxy.summary(&sum))),
        }
    }
    drop(proxy);
    drop(launched);
    if let Err(error) = helper.finish() {
        tracing::warn!(%error, "the privileged helper ended early");
    }
    Ok(ExitCode::from(outcome.code()))
}

/// A file, and what it held when it was loaded.
fn read(path: &Path) -> Result<(PathBuf, Fingerprint, Checked), Failure> {
    let loaded = Fingerprint::of(path);
    let checked = config::load(path).map_err(Failure::Config)?;
    Ok((path.to_owned(), loaded, checked))
}

/// The command in its cgroup, before it runs.
fn prepare(command: &Command, helper: &Arc<Helper>) -> Result<Launched, Failure> {
    let launched = Launched::prepare(command, helper).map_err(|error| match error {
        LaunchError::NulByte => Failure::Usage(error.to_string()),
        error => Failure::Unavailable(with_causes(&error)),
    })?;
    let registration = Registration {
        targets: vec![target(launched.cgroup())],
        config: None,
    };
    helper
        .register(&registration)
        .map_err(unavailable("the command's cgroup cannot be registered"))?;
    Ok(launched)
}

/// What the command line says of policies, whatever the file says.
struct PolicyFlags {
    /// None is in force.
    observe: bool,
    /// These faults are injected.
    fault: Option<fault::Settings>,
}

/// The command is captured and nothing else, under the policies that are wished
/// for. The admin socket is private where the file does not place it: the default
/// port would clash with a service on this machine, or with an exec within an
/// exec.
fn only(cgroup: PathBuf, admin: PathBuf, flags: PolicyFlags) -> Overrides {
    Box::new(move |checked| {
        if flags.observe {
            checked.routes = checked.routes.observed();
        }
        if let Some(fault) = &flags.fault {
            checked.routes.inject(fault);
        }
        let capture = checked.capture.get_or_insert_with(Settings::default);
        capture.targets = vec![target(&cgroup)];
        if checked.admin.listen == BindAddr::Tcp(config::ADMIN_LISTEN) {
            checked.admin.listen = BindAddr::Unix(admin.clone());
        }
    })
}

fn target(cgroup: &Path) -> Target {
    Target {
        cgroup: cgroup.to_owned(),
        netns: None,
    }
}

/// Makes the private directory of the admin socket; the helper removes it.
fn admin_directory(helper: &Helper) -> Result<PathBuf, Failure> {
    let no_place = "no private place for the admin socket";
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places = runtime.into_iter().chain([std::env::temp_dir()]);
    let base = Base::first_of(places).map_err(unavailable(no_place))?;
    // First: we may be killed between any two lines.
    helper
        .remove_admin_directory_at_end(base.as_fd())
        .map_err(unavailable("the privileged helper does not answer"))?;
    let name = format!("{EXEC_PREFIX}{}", std::process::id());
    base.make(&name, ADMIN_SOCKET)
        .map_err(unavailable(no_place))
}
