//! Names of files, and names of servers.

use std::path::PathBuf;

use serde_json::Value as Json;

use super::addresses::is_host_name;
use crate::config::read::Scalar;
use crate::config::secrets;
use crate::config::setting::Value;
use crate::credential::spiffe_id::IdMatch;
use crate::route::tls::{self, Ca, CertificateSource, Sni};

/// A file. A path that does not begin at the root begins in the directory of the
/// configuration file.
#[derive(Debug, Clone)]
pub(in crate::config) struct FilePath(pub(in crate::config) PathBuf);

/// Certificates: those of the identity, or of a file.
#[derive(Debug, Clone)]
pub(in crate::config) struct CertFile(CertificateSource);

/// What must be right with a certificate: a word, or a SPIFFE ID.
#[derive(Debug, Clone)]
pub(in crate::config) struct Verify(tls::Verify);

/// Which clients may call, by their SPIFFE IDs.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct ClientId(IdMatch);

/// Certificate authorities: the system's, those of the identity, or a file.
#[derive(Debug, Clone)]
pub(in crate::config) struct CaFile(Ca);

/// The name of a server, or `auto`.
#[derive(Debug, Clone)]
pub(in crate::config) struct ServerName(Sni);

impl Scalar for FilePath {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains('\0') {
            return Err("must name a file".to_owned());
        }
        // Whoever writes a secret where its file is to be named would find it in the log.
        if !text.starts_with('/') && secrets::looks_secret(text) {
            return Err("must name a file, and looks like a secret; a file is ./NAME".to_owned());
        }
        Ok(Self(text.into()))
    }
}

impl Scalar for CaFile {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "system" => Ok(Self(Ca::System)),
            "identity" => Ok(Self(Ca::Identity)),
            path => Ok(Self(Ca::File(FilePath::parse(path)?.0))),
        }
    }
}

impl Scalar for CertFile {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "identity" => Ok(Self(CertificateSource::Identity)),
            path => Ok(Self(CertificateSource::File(FilePath::parse(path)?.0))),
        }
    }
}

impl Scalar for Verify {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(match text {
            "full" => tls::Verify::Full,
            "ca" => tls::Verify::Ca,
            "off" => tls::Verify::Off,
            id if id.contains("://") => {
                let id: Result<IdMatch, _> = id.parse();
                tls::Verify::Spiffe(id.map_err(|error| error.to_string())?)
            }
            _ => return Err("must be full, ca, off, or a SPIFFE ID as spiffe://td/path".into()),
        }))
    }
}

impl Scalar for ClientId {
    fn parse(text: &str) -> Result<Self, String> {
        let id: Result<IdMatch, _> = text.parse();
        id.map(Self).map_err(|error| error.to_string())
    }
}

impl Scalar for ServerName {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self(Sni::Auto)),
            address if address.parse::<std::net::IpAddr>().is_ok() => {
                Ok(Self(Sni::Name(address.to_owned())))
            }
            name => {
                is_host_name(name)?;
                let name = name.strip_suffix('.').unwrap_or(name);
                Ok(Self(Sni::Name(name.to_ascii_lowercase())))
            }
        }
    }
}

impl Value<Ca> for CaFile {
    fn meaning(&self) -> Ca {
        self.0.clone()
    }

    fn written(meaning: &Ca) -> Option<Json> {
        Some(match meaning {
            Ca::System => "system".into(),
            Ca::Identity => "identity".into(),
            Ca::File(path) => path.display().to_string().into(),
        })
    }
}

impl Value<tls::Verify> for Verify {
    fn meaning(&self) -> tls::Verify {
        self.0.clone()
    }

    fn written(meaning: &tls::Verify) -> Option<Json> {
        Some(match meaning {
            tls::Verify::Full => "full".into(),
            tls::Verify::Ca => "ca".into(),
            tls::Verify::Off => "off".into(),
            tls::Verify::Spiffe(id) => id.to_string().into(),
        })
    }
}

impl Value<Sni> for ServerName {
    fn meaning(&self) -> Sni {
        self.0.clone()
    }

    fn written(meaning: &Sni) -> Option<Json> {
        Some(match meaning {
            Sni::Auto => "auto".into(),
            Sni::Name(name) => name.as_str().into(),
        })
    }
}

super::fills! {
    ClientId => IdMatch, |id| Some(id.to_string().into());
    FilePath => PathBuf, |path| Some(path.display().to_string().into());
    CertFile => CertificateSource, |cert| Some(match cert {
        CertificateSource::Identity => "identity".into(),
        CertificateSource::File(path) => path.display().to_string().into(),
    });
}

super::value_schemas! {
    FilePath: { "type": "string", "minLength": 1 },
    CaFile: { "type": "string", "minLength": 1 },
    CertFile: { "type": "string", "minLength": 1 },
    ClientId: { "type": "string", "format": "SPIFFE ID", "pattern": "^spiffe://" },
    Verify: {
        "anyOf": [
            { "const": "full" },
            { "const": "ca" },
            { "const": "off" },
            { "type": "string", "format": "SPIFFE ID", "pattern": "^spiffe://" },
        ],
    },
    ServerName: { "type": "string", "minLength": 1 },
}
