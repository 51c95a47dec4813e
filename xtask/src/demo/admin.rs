//! The admin API of the demo's proxy: readiness, metrics, breaker.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use ambassador_tests::Exposition;
use serde_json::Value;

use crate::workspace::Failure;

/// Where it is asked. Copies ask the same one.
#[derive(Debug, Clone, Copy)]
pub struct Admin {
    address: SocketAddr,
}

/// What `/metrics` said.
pub struct Metrics(Exposition);

impl Admin {
    /// The API at this address.
    pub fn at(address: SocketAddr) -> Admin {
        Admin { address }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the proxy serves.
    pub fn is_ready(&self) -> bool {
        self.ask("/readyz").is_ok()
    }

    /// What the proxy counted.
    pub fn metrics(&self) -> Result<Metrics, Failure> {
        let text = self.ask("/metrics")?;
        Ok(Metrics(Exposition::parse(&text)))
    }

    /// What `/upstreams` says of the breaker of an upstream.
    pub fn breaker(&self, upstream: &str) -> Result<Value, Failure> {
        let document = self.ask("/upstreams")?;
        breaker_in(&document, upstream).ok_or_else(|| {
            Failure::Check(vec![format!(
                "/upstreams has no breaker of {upstream}: {document}"
            )])
        })
    }

    /// The body of a GET that is answered 200.
    fn ask(&self, path: &str) -> Result<String, Failure> {
        let answer = self.exchange(path);
        match answer.as_deref().map(|text| text.split_once("\r\n\r\n")) {
            Some(Some((head, body))) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
            _ => Err(Failure::Check(vec![format!("{path}: {answer:?}")])),
        }
    }

    fn exchange(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Metrics {
    /// The sum of the samples of `name` that have all of these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.0.sum(name, labels)
    }

    /// The backend of the shards: `io_uring` or `epoll`.
    pub fn backend(&self) -> &str {
        let backend = self.0.label("ambassador_build_info", "backend");
        backend.unwrap_or("unknown")
    }
}

/// The state of the breaker of this upstream. Its settings have the same name,
/// and stand under `policies`.
fn breaker_in(document: &str, upstream: &str) -> Option<Value> {
    let mut document: Value = serde_json::from_str(document).ok()?;
    let mut list = document.get_mut("upstreams")?.as_array_mut()?.iter_mut();
    let entry = list.find(|entry| entry["name"] == upstream)?;
    let breaker = entry.get_mut("circuit_breaker")?.take();
    // Read in the loops that wait for it: as good as absent without it.
    breaker
        .get("refuses_for_seconds")
        .is_some()
        .then_some(breaker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_name_and_whole_labels() {
        let metrics = Metrics(Exposition::parse(
            "# TYPE a_total counter\n\
             a_total{upstream=\"demo\",status=\"200\"} 3\n\
             a_total{upstream=\"demo\",status=\"503\"} 4\n\
             a_total{upstream=\"other\",status=\"200\"} 5\n\
             a_total{last_upstream=\"demo\",status=\"a, \\\"b\\\" } 9\"} 6 1700000000\n\
             a_total_more{upstream=\"demo\"} 6\n\
             ambassador_build_info{version=\"1\",backend=\"epoll\"} 1\n",
        ));
        let demo = ("upstream", "demo");
        assert_eq!(metrics.sum("a_total", &[demo]), 7.0);
        assert_eq!(metrics.sum("a_total", &[demo, ("status", "200")]), 3.0);
        assert_eq!(metrics.sum("a_total", &[("status", "a, \"b\" } 9")]), 6.0);
        assert_eq!(metrics.sum("a_total", &[]), 18.0);
        assert_eq!(metrics.sum("b_total", &[demo]), 0.0);
        assert_eq!(metrics.backend(), "epoll");
    }

    #[test]
    fn the_breaker_of_an_upstream_is_its_state_not_its_settings() {
        let document = r#"{ "upstreams": [
            { "name": "other", "circuit_breaker": { "state": "closed", "refuses_for_seconds": null } },
            { "name": "demo", "policies": { "circuit_breaker": { "sleep": "2s" } },
              "circuit_breaker": { "state": "open", "refuses_for_seconds": 1.5 } },
            { "name": "older", "policies": { "circuit_breaker": { "sleep": "2s" } } }
        ] }"#;
        let breaker = breaker_in(document, "demo").unwrap();
        assert_eq!(breaker["state"], "open");
        assert_eq!(breaker["refuses_for_seconds"], 1.5);
        assert_eq!(breaker_in(document, "older"), None);
        assert_eq!(breaker_in(document, "nobody"), None);
        assert_eq!(breaker_in("{}", "demo"), None);
    }
}
