//! Words and names: of users, zones, header fields, paths, methods.

use std::sync::Arc;

use serde_json::Value as Json;

use super::{Distinct, fills, number, value_schemas};
use crate::config::read::Scalar;
use crate::config::setting::Value;
use crate::policy::methods;
use crate::workload;
use crate::workload::user::Ids;

/// As long as useradd takes it.
const USER_NAME_BYTES_MAX: usize = 32;
/// Longer methods than any registered one (RFC 9110 section 9.1 sets no limit).
const METHOD_BYTES_MAX: usize = 32;
/// Longer than any name of a service.
const SERVICE_BYTES_MAX: usize = 256;
/// Fields that describe the connection or the message as it is framed
/// (RFC 9110 section 7.6.1, RFC 9112 section 6), or that routing decides.
const OWNED_FIELDS: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-upstream-host",
];

#[derive(Debug, Clone)]
pub(in crate::config) struct Text(pub(in crate::config) String);

/// Who a process is.
#[derive(Debug, Clone)]
pub(in crate::config) struct User(workload::User);

/// The name of a zone.
#[derive(Debug, Clone)]
pub(in crate::config) struct Zone(Arc<str>);

/// A field that a request could have, in lower case.
#[derive(Debug, Clone)]
pub(in crate::config) struct FieldName(pub(in crate::config) Box<str>);

/// A field that the proxy itself does not answer for, in lower case.
#[derive(Debug, Clone)]
pub(in crate::config) struct OwnFieldName(Box<str>);

/// The beginning of the path of a request.
#[derive(Debug, Clone)]
pub(in crate::config) struct PathPrefix(String);

/// The name of a service of gRPC; empty: the server as a whole.
#[derive(Debug, Clone)]
pub(in crate::config) struct GrpcService(String);

/// A method of requests.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct Method(String);

/// What is wrong with the name of a field, which the proxy itself may answer for.
pub(in crate::config) fn own_field_mistake(name: &str) -> Option<&'static str> {
    let owned = || {
        OWNED_FIELDS
            .iter()
            .any(|owned| owned.eq_ignore_ascii_case(name))
    };
    match is_token(name) {
        false => Some("is no header name"),
        true if owned() => Some("is a header that the proxy itself answers for"),
        true => None,
    }
}

/// RFC 9110 section 5.6.2.
pub(in crate::config) fn is_token(text: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(token)
}

impl Scalar for Text {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
}

impl Scalar for User {
    fn parse(text: &str) -> Result<Self, String> {
        let ids = text.split_once(':').map(|(uid, gid)| {
            let (uid, gid) = (number(uid)?, number(gid)?);
            // The highest means "as it is" in the calls that change it.
            (uid != u32::MAX && gid != u32::MAX).then_some(Ids { uid, gid })
        });
        // As useradd takes it; no group, number or path is mistaken for one.
        let is_name = |text: &str| {
            let mut rest = text.bytes();
            let first = rest.next();
            text.len() <= USER_NAME_BYTES_MAX
                && first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
                && rest.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        Ok(Self(match (text, ids.flatten()) {
            ("auto", _) => workload::User::Auto,
            (_, Some(ids)) => workload::User::Ids(ids),
            (name, None) if is_name(name) => workload::User::Named(name.to_owned()),
            _ => return Err("must be auto, the name of a user, or uid:gid as 998:998".to_owned()),
        }))
    }
}

impl Scalar for Zone {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("must be the name of a zone".to_owned()),
            name => Ok(Self(name.into())),
        }
    }
}

impl Scalar for FieldName {
    fn parse(text: &str) -> Result<Self, String> {
        match is_token(text) {
            true => Ok(Self(text.to_ascii_lowercase().into())),
            false => Err("is no header name".to_owned()),
        }
    }
}

impl Scalar for OwnFieldName {
    fn parse(text: &str) -> Result<Self, String> {
        match own_field_mistake(text) {
            Some(what) => Err(what.to_owned()),
            None => Ok(Self(text.to_ascii_lowercase().into())),
        }
    }
}

impl Scalar for PathPrefix {
    fn parse(text: &str) -> Result<Self, String> {
        let of_path = |b: u8| !b.is_ascii() || b.is_ascii_graphic() && b != b'?' && b != b'#';
        match (text.starts_with('/'), text.bytes().all(of_path)) {
            (true, true) => Ok(Self(text.to_owned())),
            (false, _) => Err("must start with a slash".to_owned()),
            _ => Err("must be a path as requests carry it, without a query".to_owned()),
        }
    }
}

impl Scalar for GrpcService {
    fn parse(text: &str) -> Result<Self, String> {
        // Whoever writes these means no service of that name.
        let is_switch = ["on", "true", "false", "yes", "no"].contains(&text);
        let begins_well = !text.starts_with(|first: char| !first.is_alphabetic() && first != '_');
        let is_name = begins_well && text.bytes().all(|byte| byte.is_ascii_graphic());
        match text.len() <= SERVICE_BYTES_MAX && is_name && !is_switch {
            true => Ok(Self(text.to_owned())),
            false => Err(
                "must be the name of a service, as shop.Cart, or \"\" for the server as a whole"
                    .to_owned(),
            ),
        }
    }
}

impl Scalar for Method {
    fn parse(text: &str) -> Result<Self, String> {
        if !is_token(text) || text.len() > METHOD_BYTES_MAX {
            return Err("is no request method".to_owned());
        }
        match text.to_ascii_uppercase() {
            upper if upper == text => Ok(Self(upper)),
            upper => Err(format!("methods have case, did you mean {upper}?")),
        }
    }
}

impl Value<methods::Methods> for Distinct<Method> {
    fn meaning(&self) -> methods::Methods {
        methods::Methods::of(self.0.iter().map(|method| method.value.0.as_str()))
    }

    fn written(methods: &methods::Methods) -> Option<Json> {
        Some(methods.names().collect::<Vec<_>>().into())
    }
}

fills! {
    Method => String, |method| Some(method.as_str().into());
    Text => String, |text| Some(text.as_str().into());
    User => workload::User, |user| Some(user.to_string().into());
    Zone => Arc<str>, |name| Some((**name).into());
    FieldName => Box<str>, |name| Some((**name).into());
    OwnFieldName => Box<str>, |name| Some((**name).into());
    PathPrefix => String, |path| Some(path.as_str().into());
    GrpcService => String, |name| Some(name.as_str().into());
}

value_schemas! {
    Text: { "type": "string" },
    User: { "type": "string", "format": "auto, name or uid:gid" },
    Zone: { "type": "string" },
    FieldName: { "type": "string" },
    OwnFieldName: { "type": "string" },
    PathPrefix: { "type": "string" },
    GrpcService: { "type": "string", "format": "name of a service" },
    Method: { "type": "string" },
}
