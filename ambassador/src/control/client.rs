//! The commands that ask a running ambassador: `status`, `top`, `why`, `drain`.

mod failure;

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;

pub(crate) use failure::FailureQuery;

use super::listen::Stream;
use crate::addr::BindAddr;
use crate::printable::{self, Lines, OneLine};
use crate::workload::small_file;

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The largest answer taken.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Between two tables of `top`.
const TOP_EVERY: Duration = Duration::from_secs(1);

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    /// `--admin`: the admin address.
    pub admin: BindAddr,
    /// `--admin-token-file`: what allows changes over TCP.
    pub token_file: Option<PathBuf>,
}

/// How `status` and `why` are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// The document as it came.
    Json,
}

/// Why a command got no answer.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// The address cannot be reached.
    Connect(BindAddr, io::Error),
    /// The exchange broke off.
    Exchange(Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time.
    Timeout,
    /// The ambassador refused.
    Refused(u16, String),
    /// The token file cannot be read, or holds what no header can.
    Token(PathBuf, io::Error),
    /// What was printed went nowhere, or the runtime cannot be made.
    Io(io::Error),
}

impl Client {
    /// `ambassador status`: what one look shows.
    pub(crate) fn status(&self, output: Output) -> Result<String, ClientError> {
        let body = self.call(Method::GET, "/upstreams")?;
        match output {
            Output::Json => Ok(printable::json(&body)),
            Output::Table => Ok(table(&parse(&body)?, None)),
        }
    }

    /// `ambassador top`: a table every second, until the terminal or the
    /// ambassador goes away.
    pub(crate) fn top(&self) -> Result<(), ClientError> {
        let mut before = None;
        let clear = if io::stdout().is_terminal() {
            "\x1b[H\x1b[2J"
        } else {
            ""
        };
        loop {
            let now = parse(&self.call(Method::GET, "/upstreams")?)?;
            let shown = table(&now, before.as_ref());
            let mut out = io::stdout().lock();
            writeln!(out, "{clear}{}", Lines(&shown))
                .and_then(|()| out.flush())
                .map_err(ClientError::Io)?;
            drop(out);
            before = Some(now);
            std::thread::sleep(TOP_EVERY);
        }
    }

    /// `ambassador why`: what happened to the failed requests that are asked for, the
    /// newest first; `None`: none is known.
    pub(crate) fn why(
        &self,
        asked: &FailureQuery,
        output: Output,
    ) -> Result<Option<String>, ClientError> {
        let body = self.call(Method::GET, &asked.path())?;
        let failures = parse(&body)?;
        let failures = failures["failures"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        if failures.is_empty() {
            return Ok(None);
        }
        Ok(Some(match output {
            Output::Json => printable::json(&body),
            Output::Table => failure::text(failures),
        }))
    }

    /// `ambassador drain`: returns when draining has begun.
    pub(crate) fn drain(&self) -> Result<(), ClientError> {
        self.call(Method::POST, "/drain").map(drop)
    }

    /// One exchange; the body of a successful answer.
    pub(crate) fn call(&self, method: Method, path: &str) -> Result<String, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ClientError::Io)?;
        runtime.block_on(async {
            tokio::time::timeout(ANSWER_WITHIN, self.exchange(method, path))
                .await
                .map_err(|_| ClientError::Timeout)?
        })
    }

    async fn exchange(&self, method: Method, path: &str) -> Result<String, ClientError> {
        let broken = |error: hyper::Error| ClientError::Exchange(error.into());
        let stream = Stream::connect(&self.admin).await;
        let stream = stream.map_err(|error| ClientError::Connect(self.admin.clone(), error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // An error of the connection also ends the request, which reports it.
        tokio::spawn(async { drop(connection.await) });

        let host = match &self.admin {
            BindAddr::Tcp(address) => address.to_string(),
            BindAddr::Unix(_) => "localhost".to_owned(),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host);
        if let Some(file) = &self.token_file {
            request = request.header(AUTHORIZATION, bearer(file)?);
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|error| ClientError::Exchange(error.into()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(ClientError::Exchange)?;
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        match status {
            StatusCode::OK | StatusCode::ACCEPTED => Ok(body),
            _ => Err(ClientError::Refused(
                status.as_u16(),
                body.trim().to_owned(),
            )),
        }
    }
}

fn bearer(file: &Path) -> Result<HeaderValue, ClientError> {
    let failed = |error| ClientError::Token(file.to_owned(), error);
    let token = small_file::read(file, small_file::BYTES_MAX).map_err(failed)?;
    let value = [b"Bearer ", token.trim_ascii()].concat();
    HeaderValue::from_bytes(&value).map_err(|error| failed(io::Error::other(error)))
}

fn parse(body: &str) -> Result<Value, ClientError> {
    serde_json::from_str(body).map_err(|error| ClientError::Exchange(error.into()))
}

const HEADINGS: [&str; 9] = [
    "UPSTREAM",
    "SOURCE",
    "REQUESTS",
    "ERRORS",
    "P50 ms",
    "P99 ms",
    "POOL",
    "TCP",
    "ENDPOINTS",
];

/// One row per upstream; with an earlier document, the counts are per interval.
fn table(now: &Value, before: Option<&Value>) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    for upstream in upstreams(now) {
        let name = &upstream["name"];
        let earlier = before.and_then(|it| upstreams(it).find(|old| old["name"] == *name));
        let since = |value: fn(&Value) -> u64| {
            value(upstream)
                .saturating_sub(earlier.map_or(0, value))
                .to_string()
        };
        let pool = &upstream["pool"];
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let number = |value: &Value| value.as_f64().map_or("-".into(), |it| it.to_string());
        let endpoints = upstream["endpoints"].as_array().map_or(&[][..], |it| it);
        let endpoints: Vec<_> = endpoints.iter().map(endpoint).collect();
        rows.push([
            text(name),
            text(&upstream["source"]),
            since(|it| it["requests"].as_u64().unwrap_or(0)),
            since(|it| it["errors"].as_u64().unwrap_or(0)),
            number(&upstream["latency_ms"]["p50"]),
            number(&upstream["latency_ms"]["p99"]),
            match (pool["open"].as_u64(), pool["idle"].as_u64()) {
                (Some(open), Some(idle)) => format!("{open} ({idle} idle)"),
                _ => "-".to_owned(),
            },
            since(|it| {
                let outcomes = it["tcp_connections"].as_object();
                let outcomes = outcomes.into_iter().flat_map(|it| it.values());
                outcomes.filter_map(Value::as_u64).sum()
            }),
            if endpoints.is_empty() {
                "-".to_owned()
            } else {
                endpoints.join(",")
            },
        ]);
    }
    aligned(&rows)
}

/// The address of an endpoint, and whether it gets no requests.
fn endpoint(view: &Value) -> String {
    let address = view["address"].as_str().unwrap_or("-");
    match view["ejected"].as_bool() {
        Some(true) => format!("{address} (ejected)"),
        _ => address.to_owned(),
    }
}

fn upstreams(document: &Value) -> impl Iterator<Item = &Value> {
    document["upstreams"].as_array().into_iter().flatten()
}

fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            write!(line, "{cell:<width$}  ").expect("a String takes every write");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(address, _) => {
                write!(
                    f,
                    "no ambassador answers on {address}: is it running, and is --admin right?"
                )
            }
            Self::Exchange(_) => f.write_str("the connection to the ambassador broke"),
            Self::Timeout => f.write_str("the ambassador did not answer in 5 s"),
            Self::Refused(status, body) => {
                write!(f, "refused with {status}: {}", OneLine(body))
            }
            Self::Token(file, _) => write!(f, "cannot use the token in {}", file.display()),
            Self::Io(_) => f.write_str("cannot show the answer"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(_, error) | Self::Token(_, error) | Self::Io(error) => Some(error),
            Self::Exchange(error) => Some(&**error),
            Self::Timeout | Self::Refused(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(requests: u64) -> Value {
        json!({ "upstreams": [{
            "name": "shop", "source": "endpoints", "requests": requests, "errors": 1,
            "latency_ms": { "p50": 1.5, "p90": 2, "p99": null },
            "pool": { "open": 3, "idle": 2 },
            "tcp_connections": { "closed": 2, "loop": 1 },
            "endpoints": [
                { "address": "10.1.2.3:80", "ejected": false },
                { "address": "10.1.2.4:80", "ejected": true },
            ],
        }]})
    }

    #[test]
    fn columns_line_up() {
        let shown = table(&document(12), None);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(
            lines[1],
            "shop      endpoints  12        1       1.5     -       3 (2 idle)  3    \
             10.1.2.3:80,10.1.2.4:80 (ejected)"
        );
        assert_eq!(lines[0].find("POOL"), lines[1].find("3 (2 idle)"));
    }

    #[test]
    fn a_second_look_counts_from_the_first() {
        let shown = table(&document(12), Some(&document(10)));
        let row: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row[2..4], ["2", "0"]);
    }
}
