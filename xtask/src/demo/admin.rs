//! The admin API of the demo's proxy: readiness, metrics, breaker.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::workspace::Failure;

/// Where it is asked. Copies ask the same one.
#[derive(Debug, Clone, Copy)]
pub struct Admin {
    address: SocketAddr,
}

/// What `/metrics` said.
pub struct Metrics(String);

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
        self.ask("/metrics").map(Metrics)
    }

    /// What `/upstreams` says of the breaker of the one upstream: JSON in one line.
    pub fn breaker(&self) -> Result<String, Failure> {
        let document = self.ask("/upstreams")?;
        breaker_in(&document)
            .map(|object| object.split_whitespace().collect::<Vec<_>>().join(" "))
            .ok_or_else(|| Failure::Check(vec![format!("/upstreams has no breaker: {document}")]))
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
        let wanted: Vec<_> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        self.0
            .lines()
            .filter(|line| line.starts_with(&format!("{name}{{")))
            .filter(|line| wanted.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.trim().parse::<f64>().ok())
            .sum()
    }

    /// The backend of the shards: `io_uring` or `epoll`.
    pub fn backend(&self) -> &str {
        let line = self
            .0
            .lines()
            .find(|line| line.starts_with("ambassador_build_info{"));
        line.and_then(|line| line.split("backend=\"").nth(1)?.split('"').next())
            .unwrap_or("unknown")
    }
}

/// The object after the key `circuit_breaker`, which has no object inside.
fn breaker_in(document: &str) -> Option<&str> {
    let after = &document[document.find("\"circuit_breaker\"")?..];
    let start = after.find('{')?;
    let end = after[start..].find('}')?;
    Some(&after[start..=start + end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_name_and_labels() {
        let metrics = Metrics(
            "# TYPE a_total counter\n\
             a_total{upstream=\"demo\",status=\"200\"} 3\n\
             a_total{upstream=\"demo\",status=\"503\"} 4\n\
             a_total{upstream=\"other\",status=\"200\"} 5\n\
             a_total_more{upstream=\"demo\"} 6\n\
             ambassador_build_info{version=\"1\",backend=\"epoll\"} 1\n"
                .into(),
        );
        let demo = ("upstream", "demo");
        assert_eq!(metrics.sum("a_total", &[demo]), 7.0);
        assert_eq!(metrics.sum("a_total", &[demo, ("status", "200")]), 3.0);
        assert_eq!(metrics.sum("b_total", &[demo]), 0.0);
        assert_eq!(metrics.backend(), "epoll");
    }

    #[test]
    fn the_breaker_is_found_in_the_document() {
        let document =
            r#"{"upstreams":[{"name":"demo","circuit_breaker":{"state":"open"},"x":{}}]}"#;
        assert_eq!(breaker_in(document), Some(r#"{"state":"open"}"#));
        assert_eq!(breaker_in("{}"), None);
    }
}
