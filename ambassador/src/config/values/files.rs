//! Names of files, and names of servers.

use std::path::PathBuf;

use serde_json::Value as Json;

use super::addresses::is_host_name;
use crate::config::read::Scalar;
use crate::config::setting::Value;
use crate::route::tls::{Ca, Sni};

/// A file. A path that does not begin at the root begins in the directory of the
/// configuration file.
#[derive(Debug, Clone)]
pub(in crate::config) struct FilePath(pub(in crate::config) PathBuf);

/// Certificate authorities: the system's, or a file.
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
        Ok(Self(text.into()))
    }
}

impl Scalar for CaFile {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "system" => Ok(Self(Ca::System)),
            path => Ok(Self(Ca::File(FilePath::parse(path)?.0))),
        }
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
            Ca::File(path) => path.display().to_string().into(),
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
    FilePath => PathBuf, |path| Some(path.display().to_string().into());
}

super::value_schemas! {
    FilePath: { "type": "string", "minLength": 1 },
    CaFile: { "type": "string", "minLength": 1 },
    ServerName: { "type": "string", "minLength": 1 },
}
