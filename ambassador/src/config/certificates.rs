//! Checks the files with certificates and keys that a configuration names, and makes
//! of them what connections are encrypted with.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::checked::{Checked, Listener, ListenerProtocol, Origin};
use super::mistakes::{Mistake, Mistakes};
use crate::clock;
use crate::control::certificates;
use crate::control::spiffe::IdentitySource;
use crate::control::{CertificateHolder, WatchedCertificates};
use crate::route::settings::Upstream;
use crate::tls::x509_context::X509Context;
use crate::tls::{Client, FileError, Server};

/// What the connections of one configuration are encrypted with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Certificates {
    /// Those of upstreams, by name.
    clients: BTreeMap<Arc<str>, Arc<Client>>,
    /// Those of listeners, by name.
    servers: BTreeMap<String, Arc<Server>>,
    /// That of the proxy.
    identity: Option<Arc<X509Context>>,
}

impl Certificates {
    /// Reads those that a configuration names. Where the settings are as they were, what
    /// is in force as `known` stays. `file` stands for the configuration in messages.
    ///
    /// # Errors
    /// Every file that cannot be used.
    pub(crate) fn open(checked: &Checked, file: &str, known: &Self) -> Result<Self, Mistakes> {
        let mut opened = Self::default();
        let mut mistakes = Vec::new();
        match identity(checked) {
            Ok(from_files) => opened.identity = from_files.or_else(|| known.identity.clone()),
            Err(what) => mistakes.push(Mistake {
                line: 0,
                path: "identity".to_owned(),
                what,
                got: None,
            }),
        }
        let own = opened.identity.clone();
        for (upstream, policies) in checked.routes.upstreams.iter().zip(&checked.policies) {
            match client(checked, upstream, known, own.clone()) {
                Ok(None) => {}
                Ok(Some(client)) => {
                    opened.clients.insert(Arc::clone(&upstream.name), client);
                }
                Err(FileError { key, what }) => {
                    let key = format!("tls.{key}");
                    let policy = policies.iter().find(|policy| policy.key == key);
                    mistakes.push(Mistake {
                        line: policy.map_or(0, |policy| policy.origin.line()),
                        path: format!("upstreams.{}.{key}", upstream.name),
                        what,
                        got: policy.map(|policy| policy.value.clone()),
                    });
                }
            }
        }
        for (number, listener) in checked.listeners.iter().enumerate() {
            match server(checked, listener, known, own.clone()) {
                Ok(None) => {}
                Ok(Some(server)) => {
                    opened.servers.insert(listener.name.clone(), server);
                }
                Err(FileError { key, what }) => mistakes.push(Mistake {
                    line: listener.tls_line,
                    path: format!("listeners[{number}].tls.{key}"),
                    what,
                    got: None,
                }),
            }
        }
        match mistakes.is_empty() {
            true => Ok(opened),
            false => Err(Mistakes::new(file, mistakes)),
        }
    }

    /// The same, with another identity of the proxy.
    pub(crate) fn with_identity(self, identity: Option<Arc<X509Context>>) -> Self {
        Self { identity, ..self }
    }

    /// That of the proxy, where its files hold it, or it was known before.
    pub(crate) fn identity(&self) -> Option<Arc<X509Context>> {
        self.identity.clone()
    }

    /// Those of upstreams, in the order of these.
    pub(crate) fn of_upstreams(&self, upstreams: &[Arc<Upstream>]) -> Vec<Option<Arc<Client>>> {
        let client = |upstream: &Arc<Upstream>| self.clients.get(&upstream.name).cloned();
        upstreams.iter().map(client).collect()
    }

    /// That of the listener with this name.
    pub(crate) fn of_listener(&self, name: &str) -> Option<&Arc<Server>> {
        self.servers.get(name)
    }

    /// Those of listeners, by name.
    pub(crate) fn servers(&self) -> impl Iterator<Item = (&str, &Arc<Server>)> {
        let servers = self.servers.iter();
        servers.map(|(name, server)| (name.as_str(), server))
    }

    /// All of them, to be renewed when their files change.
    pub(crate) fn watched(&self, checked: &Checked) -> Vec<WatchedCertificates> {
        let clients = self.clients.iter().map(|(name, client)| {
            let holder = CertificateHolder::Upstream(Arc::clone(client));
            (format!("upstreams.{name}.tls"), holder)
        });
        let servers = self.servers.iter().map(|(name, server)| {
            let holder = CertificateHolder::Listener(Arc::clone(server));
            (format!("listeners.{name}.tls"), holder)
        });
        let all = clients
            .chain(servers)
            .map(|(name, holder)| WatchedCertificates {
                name,
                holder,
                directory: checked.directory.clone(),
            });
        all.collect()
    }
}

/// The identity of the proxy that files hold; `None`: it comes from elsewhere, or there
/// is none.
fn identity(checked: &Checked) -> Result<Option<Arc<X509Context>>, String> {
    let Some(IdentitySource::Files(files)) = checked.identity_source() else {
        return Ok(None);
    };
    let identity = files.read(clock::unix_ms() / 1_000);
    let identity = identity.map_err(|error| error.to_string())?;
    Ok(Some(Arc::new(identity)))
}

fn client(
    checked: &Checked,
    upstream: &Upstream,
    known: &Certificates,
    identity: Option<Arc<X509Context>>,
) -> Result<Option<Arc<Client>>, FileError> {
    let Some(settings) = &upstream.tls else {
        return Ok(None);
    };
    let known = known.clients.get(&upstream.name);
    if let Some(known) = known.filter(|known| known.serves(upstream)) {
        return Ok(Some(Arc::clone(known)));
    }
    let files = certificates::of_upstream(settings, &checked.directory).read(identity)?;
    Ok(Client::new(upstream, &files)?.map(Arc::new))
}

fn server(
    checked: &Checked,
    listener: &Listener,
    known: &Certificates,
    identity: Option<Arc<X509Context>>,
) -> Result<Option<Arc<Server>>, FileError> {
    let Some(settings) = &listener.tls else {
        return Ok(None);
    };
    let protocols = match listener.protocol {
        // The first bytes say what is spoken; the first of these is preferred.
        ListenerProtocol::Http => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        ListenerProtocol::Tcp => Vec::new(),
    };
    let known = known.servers.get(&listener.name);
    if let Some(known) = known.filter(|known| known.serves(settings, &protocols)) {
        return Ok(Some(Arc::clone(known)));
    }
    let files = certificates::of_listener(settings, &checked.directory).read(identity)?;
    Server::new(settings, &files, protocols).map(|server| Some(Arc::new(server)))
}

impl Checked {
    /// Where the identity of the proxy comes from.
    pub(crate) fn identity_source(&self) -> Option<IdentitySource> {
        let identity = self.identity.as_ref();
        identity.and_then(|identity| identity.source(&self.directory))
    }
}

impl Origin {
    /// The line of the file; 0: none.
    fn line(self) -> usize {
        match self {
            Self::BuiltIn => 0,
            Self::Telemetry(line) | Self::Defaults(line) | Self::Upstream(line) => line,
            Self::Route { line, .. } => line,
        }
    }
}
