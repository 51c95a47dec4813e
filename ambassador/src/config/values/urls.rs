//! URLs of servers that give credentials.

use crate::config::read::Scalar;
use crate::credential::server_url::ServerUrl;

/// A URL with `https`, or with `http` to this machine.
#[derive(Debug, Clone)]
pub(in crate::config) struct Url(pub(in crate::config) ServerUrl);

impl Scalar for Url {
    fn parse(text: &str) -> Result<Self, String> {
        let url = ServerUrl::parse(text).map_err(|error| error.to_string())?;
        Ok(Self(url))
    }
}

super::value_schemas! {
    Url: { "type": "string", "format": "uri" },
}
