//! Decides which names are resolved, in which namespaces and with whose files.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::capture::settings::Settings;
use crate::control::{Files, NameService, NameServices, Transport, WatchedName};
use crate::proxy::generation::Generation;
use crate::route::settings::{Claim, Endpoints, Unmatched};
use crate::upstream::dial::Namespace;
use crate::workload::{Family, Helper, Kind, Netns, SocketSpec};

/// Where names are resolved, each place with its own files and sockets.
pub(super) struct Places {
    /// Where there are callers: what a name means to them is for them alone.
    pub callers: Vec<Place>,
    /// Whose addresses of claimed names the kernel is told.
    pub kernel: Place,
}

/// A namespace, and how names are looked up in it.
pub(super) type Place = (Namespace, Arc<NameService>);

/// Whether there are listeners besides those for what is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listeners {
    /// They are in the proxy's own namespace.
    Some,
    /// Nobody calls there but who is captured.
    None,
}

impl Places {
    /// Nothing is captured.
    pub(super) fn own(names: &Arc<NameService>) -> Self {
        let own = (Namespace::default(), Arc::clone(names));
        Self {
            callers: vec![own.clone()],
            kernel: own,
        }
    }

    /// By namespace.
    pub(super) fn services(self) -> NameServices {
        self.callers.into_iter().chain([self.kernel]).collect()
    }
}

/// Looks names up as the programs in a namespace would: by their files, through
/// sockets in it. `path` names it.
pub(super) fn service(netns: Netns, path: &Path, helper: &Arc<Helper>) -> NameService {
    let files = files(path, helper);
    let helper = Arc::clone(helper);
    let make = move |server: SocketAddr, transport| {
        let spec = SocketSpec {
            family: Family::of(&server),
            kind: match transport {
                Transport::Udp => Kind::Datagram,
                Transport::Tcp => Kind::Stream,
            },
            count: 1,
            mark: None,
        };
        let made = helper.sockets(&netns, &spec)?.pop();
        made.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    };
    NameService::new(files, Some(Arc::new(make)))
}

/// The files that a resolver in a namespace reads: those of the process by which
/// it is named (`/proc/PID/ns/net`); else those in `/etc/netns/NAME`, which stand
/// before those in `/etc` (ip-netns(8)).
fn files(netns: &Path, helper: &Helper) -> Files {
    if netns.ends_with("ns/net") {
        match helper.root_of(netns) {
            Ok(root) => return Files::Workload(root),
            Err(error) => {
                tracing::warn!(path = %netns.display(), %error, "names of this namespace are resolved with the proxy's own files");
            }
        }
    }
    let directory = Path::new("/etc/netns").join(netns.file_name().unwrap_or_default());
    let file = |name: &str| {
        Some(directory.join(name))
            .filter(|path| path.exists())
            .unwrap_or_else(|| Path::new("/etc").join(name))
    };
    Files::Own {
        resolv_conf: file("resolv.conf"),
        hosts: file("hosts"),
    }
}

/// The names of `dns:` endpoints, wherever there are callers; and of exact `hosts`
/// whose addresses the kernel has to know: under `passthrough` only claimed ones
/// are captured, under `kernel_fail_fast` it refuses what one upstream alone claims, and
/// without the proxy what an upstream has its own `on_failure` for.
pub(super) fn watched(
    generation: &Generation,
    capture: Option<&Settings>,
    places: &Places,
) -> Vec<WatchedName> {
    let mut targets = generation.targets();
    let fails_fast =
        targets.any(|(upstream, _)| upstream.policies.circuit_breaker.kernel_fail_fast);
    let mut targets = generation.targets();
    let fails_apart = targets.any(|(upstream, _)| upstream.failure_policy().is_some());
    let kernel_asks = capture.is_some_and(|capture| {
        fails_fast || fails_apart || capture.unmatched == Unmatched::Passthrough
    });
    let mut names = HashSet::new();
    for (upstream, shared) in generation.targets() {
        if let Endpoints::Dns { name, port } = &upstream.endpoints {
            names.extend(places.callers.iter().map(|(namespace, _)| WatchedName {
                name: name.clone(),
                port: *port,
                upstream: shared.label,
                namespace: *namespace,
            }));
        }
        for claim in &upstream.claims {
            if kernel_asks && let Claim::Name { host, port } = claim {
                names.insert(WatchedName {
                    name: host.clone(),
                    port: port.unwrap_or(0),
                    upstream: shared.label,
                    namespace: places.kernel.0,
                });
            }
        }
    }
    names.into_iter().collect()
}
