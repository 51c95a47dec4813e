//! `circuit_breaker.kernel_fail_fast`: checks which upstreams can have it.

use std::sync::Arc;

use super::File;
use super::upstreams::Upstreams;
use crate::capture::settings::{self as capture, Mode};
use crate::config::findings::Findings;
use crate::config::policies::Policies;
use crate::config::read::Spanned;
use crate::config::setting::Value;
use crate::config::values::{Switch, claim};
use crate::route::settings::{Claim, Upstream};

/// Notes who asks for it and cannot have it, and takes it from those who have
/// only inherited it.
pub(super) fn check(
    file: &File,
    capture: Option<&capture::Settings>,
    upstreams: &mut Upstreams,
    findings: &mut Findings,
) {
    let lacks_capture = lack_of_capture(capture);
    let defaults = file.defaults.as_ref();
    let defaults = defaults.and_then(|defaults| own(defaults));
    if let (Some(what), Some(key)) = (lacks_capture, defaults)
        && key.value.meaning()
    {
        findings.warn_at(key, format!("does nothing: {what}"));
    }
    for (index, (_, raw)) in file.upstreams.items().iter().enumerate() {
        let upstream = &upstreams.list[index];
        if !upstream.policies.circuit_breaker.kernel_fail_fast {
            continue;
        }
        let lack = match lacks_capture {
            Some(what) => Some(what.to_owned()),
            None => lack_of_claims(upstream, &upstreams.list),
        };
        let Some(what) = lack else {
            continue;
        };
        if let Some(key) = own(&raw.policies) {
            findings.mistake_at(key, what);
        }
        let upstream = Arc::make_mut(&mut upstreams.list[index]);
        upstream.policies.circuit_breaker.kernel_fail_fast = false;
        upstreams.policies[index].without_kernel_fail_fast();
    }
}

fn own(policies: &Policies) -> Option<&Spanned<Switch>> {
    policies.circuit_breaker.as_ref()?.kernel_fail_fast.as_ref()
}

fn lack_of_capture(capture: Option<&capture::Settings>) -> Option<&'static str> {
    match capture {
        // A command line may say what is captured, but not every one does.
        None => Some("needs capture, an empty one where exec or run --cgroup says of what"),
        Some(capture) if capture.mode != Mode::Ebpf => Some("needs capture.mode: ebpf"),
        Some(_) => None,
    }
}

fn lack_of_claims(upstream: &Upstream, all: &[Arc<Upstream>]) -> Option<String> {
    let wildcard = |claim: &Claim| matches!(claim, Claim::Wildcard { .. });
    if upstream.claims.iter().all(wildcard) {
        let what = "needs an address, a CIDR or a whole name in hosts: the kernel goes by address";
        return Some(what.to_owned());
    }
    let others = all.iter().filter(|other| other.name != upstream.name);
    let others = others.flat_map(|other| other.claims.iter().map(move |claim| (other, claim)));
    let (other, shared) = others.into_iter().find(|(_, theirs)| {
        let mut mine = upstream.claims.iter();
        mine.any(|mine| overlap(mine, theirs))
    })?;
    let (name, shared) = (&other.name, claim(shared));
    Some(format!(
        "needs addresses of its own, and {name} claims {shared}"
    ))
}

/// Whether two claims have an address in common, as far as the file tells.
fn overlap(mine: &Claim, theirs: &Claim) -> bool {
    let (Claim::Net { net: mine, port }, Claim::Net { net, port: theirs }) = (mine, theirs) else {
        return false;
    };
    capture::Claim::new(*mine, *port).overlaps(&capture::Claim::new(*net, *theirs))
}
