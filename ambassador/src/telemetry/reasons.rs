//! Why a request fails, in plain words: what each reason means, who is at fault, and what
//! to do. `docs/reasons.md` and `ambassador explain --reason` are made from it.

use std::fmt;

use serde_json::{Value, json};

use super::{ReasonLabel, TcpOutcome};

/// Where the page is that has all of them.
const PAGE: &str = "docs/reasons.md";

/// What there is to know of a reason.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Explanation {
    /// The reason.
    reason: ReasonLabel,
    /// The status of the reply; `None`: there is no reply.
    status: Option<&'static str>,
    /// What has happened.
    meaning: &'static str,
    /// Whose fault it may be, the likeliest first.
    at_fault: &'static [Fault],
    /// What to do, a step each.
    remedy: &'static [&'static str],
    /// Metrics that tell more.
    metrics: &'static [&'static str],
}

/// Who has to change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Whoever sent the request.
    Caller,
    /// The upstream, or one of its endpoints.
    Upstream,
    /// What is between.
    Network,
    /// The configuration of the proxy.
    Configuration,
    /// The machine that the proxy runs on.
    Machine,
    /// Nobody: somebody wants it so.
    Nobody,
}

impl Fault {
    fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "the caller",
            Self::Upstream => "the upstream",
            Self::Network => "the network",
            Self::Configuration => "the configuration",
            Self::Machine => "this machine",
            Self::Nobody => "nobody",
        }
    }
}

impl Explanation {
    /// What there is to know of `reason`.
    pub(crate) fn of(reason: ReasonLabel) -> Self {
        use Fault::{Caller, Configuration, Machine, Network, Nobody, Upstream};
        let (status, meaning, at_fault, remedy, metrics): (_, _, &[_], &[_], &[_]) = match reason {
            ReasonLabel::NoEndpoint => (
                Some("503"),
                "The upstream has no endpoint: its name was never resolved.",
                &[Configuration, Network],
                &[
                    "See with `ambassador status` which endpoints the upstream has.",
                    "Resolve the name of the endpoint on this machine: `getent hosts NAME`. Correct `endpoints`, or the resolver.",
                ],
                &["ambassador_dns_failures_total"],
            ),
            ReasonLabel::ConnectFailed => (
                Some("502"),
                "The connect to the endpoint was refused, or led nowhere.",
                &[Upstream, Network],
                &[
                    "See whether a program listens at the `endpoint` of the log.",
                    "Connect to it from this machine. If that fails too, look for a firewall or a network policy between.",
                ],
                &["ambassador_upstream_attempts_total"],
            ),
            ReasonLabel::ConnectTimeout => (
                Some("504"),
                "No connection was made, or came free, within `timeouts.connect`.",
                &[Upstream, Network, Configuration],
                &[
                    "If all connections are in use, find out why the upstream is slow. Then raise `pool.max_connections` if it can take more.",
                    "If connects are slow, look for lost packets (`ss -ti`) and for a listen queue that is full.",
                ],
                &[
                    "ambassador_pool_connections",
                    "ambassador_upstream_attempts_total",
                ],
            ),
            ReasonLabel::UpstreamReset => (
                Some("502"),
                "The upstream closed the connection before its answer was whole.",
                &[Upstream, Network],
                &[
                    "Look at the log of the upstream at this time for a crash, a restart or a worker that was ended.",
                    "If the upstream closes idle connections, give `pool.idle_timeout` less time than it has.",
                ],
                &[
                    "ambassador_upstream_attempts_total",
                    "ambassador_pool_reuse_total",
                ],
            ),
            ReasonLabel::ProtocolError => (
                Some("502"),
                "The upstream's answer is not HTTP, or breaks a rule of it.",
                &[Upstream, Configuration],
                &[
                    "Read `detail` in the log: it names the rule, where it is known.",
                    "See whether the port speaks what `protocol` says, and whether it needs `tls`.",
                ],
                &["ambassador_upstream_attempts_total"],
            ),
            ReasonLabel::TlsFailed => (
                Some("502"),
                "No TLS session came about with the upstream, or it did not accept the client certificate.",
                &[Configuration, Upstream],
                &[
                    "Read `detail` in the log: it has the cause. \"When it fails\" in docs/tls.md says what to do about each.",
                ],
                &[
                    "ambassador_tls_handshakes_total",
                    "ambassador_certificate_expiry_seconds",
                ],
            ),
            ReasonLabel::RequestTimeout => (
                Some("504"),
                "There was no response within `timeouts.request` or the time that the caller gave. Or the upstream read the body more slowly than `timeouts.min_rate`.",
                &[Upstream, Caller, Configuration],
                &[
                    "Compare `duration_ms` in the log with what the upstream usually takes.",
                    "If the upstream is slower than usual, look there. If it is not, give the request more time.",
                ],
                &["ambassador_request_duration_seconds"],
            ),
            ReasonLabel::TryTimeout => (
                Some("504"),
                "There was no response within the time of a try (`timeouts.per_try`, `timeouts.first_byte`), or its head took longer than `timeouts.head`.",
                &[Upstream, Configuration],
                &[
                    "See whether one endpoint is slow, or all are: `endpoints` in the log has those that were tried.",
                    "Give a try more time than the upstream takes for 99 of 100 requests.",
                ],
                &[
                    "ambassador_upstream_attempts_total",
                    "ambassador_retries_total",
                ],
            ),
            ReasonLabel::CircuitOpen => (
                Some("503"),
                "The circuit is open: the upstream failed too often, and gets no requests for now.",
                &[Upstream],
                &[
                    "Find out why the upstream failed: look at the reasons and statuses just before the circuit opened.",
                    "The circuit closes by itself when a request goes well, after `circuit_breaker.sleep`. `POST /upstreams/NAME/breaker/close` closes it by hand.",
                ],
                &[
                    "ambassador_breaker_state",
                    "ambassador_breaker_transitions_total",
                ],
            ),
            ReasonLabel::RetryBudget => (
                Some("that of the failure"),
                "The upstream failed, another try was due, and the retry budget is used up.",
                &[Upstream],
                &[
                    "Find out why tries fail. More retries would only add load to an upstream that fails.",
                    "If single failures are usual for the upstream, raise `retry.budget`.",
                ],
                &[
                    "ambassador_retries_total",
                    "ambassador_upstream_attempts_total",
                ],
            ),
            ReasonLabel::RateLimited => (
                Some("429"),
                "The rate limit of the upstream is used up.",
                &[Caller, Configuration],
                &[
                    "Send less, or wait as long as `Retry-After` says.",
                    "Raise `rate_limit` if the upstream can take more.",
                ],
                &["ambassador_requests_total"],
            ),
            ReasonLabel::Overloaded => (
                Some("503"),
                "Too many requests to the upstream are in flight or wait, or this machine lacks descriptors, ports or memory.",
                &[Upstream, Machine, Configuration],
                &[
                    "Look first whether the upstream is slow: then requests pile up. `pool.max_pending`, `pool.max_requests` and `concurrency` set how many may.",
                    "If the log says that this machine lacks something, raise `ulimit -n`, `net.ipv4.ip_local_port_range` or `memory_limit`.",
                ],
                &[
                    "ambassador_pool_connections",
                    "ambassador_shed_connections_total",
                    "ambassador_memory_bytes",
                ],
            ),
            ReasonLabel::NoRoute => (
                Some("404"),
                "No upstream matches the request.",
                &[Configuration, Caller],
                &[
                    "Run `ambassador explain --config FILE URL`: it shows what was compared.",
                    "Add the host to an upstream, or a route. `unmatched` sets what happens to the rest.",
                ],
                &["ambassador_requests_total"],
            ),
            ReasonLabel::Loop => (
                Some("508"),
                "The request would come back to this proxy, or goes in a circle of proxies.",
                &[Configuration],
                &[
                    "See whether an endpoint of the upstream is a listener of this proxy.",
                    "If proxies stand in a row on purpose, raise `max_hops`.",
                ],
                &["ambassador_requests_total"],
            ),
            ReasonLabel::BadRequest => (
                Some("400, 408 or 413"),
                "The request is malformed. 408: its head took longer than `timeouts.head`, or its body was slower than `timeouts.min_rate`. 413: it has a chunk with a signature of AWS that is larger than 1 MiB.",
                &[Caller],
                &["Read `detail` in the log: it names the rule and the field. Mend the client."],
                &["ambassador_requests_total"],
            ),
            ReasonLabel::HeadersTooLarge => (
                Some("431"),
                "The head of the request is too large, or larger than an HTTP/2 upstream takes.",
                &[Caller, Upstream],
                &[
                    "Look for cookies that grow: they are the usual cause.",
                    "Read `detail` in the log: it says where the limit is the upstream's.",
                ],
                &["ambassador_requests_total"],
            ),
            ReasonLabel::AuthUnavailable => (
                Some("503"),
                "The upstream has `auth`, or the request a placeholder, and there is no valid credential. Nothing was sent.",
                &[Configuration, Upstream],
                &[
                    "See with `ambassador status --json` and in the log of the proxy why the credential could not be fetched.",
                    "docs/credentials.md has what each source needs.",
                ],
                &[
                    "ambassador_credential_refreshes_total",
                    "ambassador_credential_expiry_seconds",
                ],
            ),
            ReasonLabel::FaultInjected => (
                Some("as configured, 503 by default"),
                "A fault was injected on purpose.",
                &[Nobody],
                &[
                    "Take `fault` out of the configuration, or `--fault` off the command line, to end it.",
                ],
                &["ambassador_faults_injected_total"],
            ),
            ReasonLabel::ClientGone => (
                None,
                "The caller left before its answer was whole, or read more slowly than `timeouts.min_rate`.",
                &[Caller, Upstream],
                &[
                    "Compare `duration_ms` in the log with the time that the caller waits: most that leave have waited too long for a slow upstream.",
                    "Give the caller more time, or find out why the upstream is slow.",
                ],
                &["ambassador_request_duration_seconds"],
            ),
            ReasonLabel::Drained => (
                None,
                "The proxy was ended, and the time of its drain was over before the request was.",
                &[Nobody],
                &["Give `drain_timeout` more time than the longest request takes."],
                &["ambassador_requests_total"],
            ),
        };
        Self {
            reason,
            status,
            meaning,
            at_fault,
            remedy,
            metrics,
        }
    }

    /// The query of Prometheus that counts it, by upstream.
    fn metric_query(self) -> String {
        let word = self.reason.as_str();
        format!("sum by (upstream) (rate(ambassador_requests_total{{reason=\"{word}\"}}[5m]))")
    }

    /// The command that finds it in the access log. Connections that are relayed have it as
    /// their outcome.
    fn log_query(self) -> String {
        let word = self.reason.as_str();
        let is_outcome = TcpOutcome::ALL.iter().any(|it| it.as_str() == word);
        let or_outcome = match is_outcome {
            true => format!(" or .outcome == \"{word}\""),
            false => String::new(),
        };
        format!("jq -c 'select(.reason == \"{word}\"{or_outcome})' access.log")
    }

    fn at_fault(self) -> String {
        let faults: Vec<_> = self.at_fault.iter().map(|fault| fault.as_str()).collect();
        faults.join(", or ")
    }

    /// The same for programs.
    pub(crate) fn to_json(self) -> Value {
        let at_fault: Vec<_> = self.at_fault.iter().map(|fault| fault.as_str()).collect();
        json!({
            "reason": self.reason.as_str(),
            "status": self.status,
            "meaning": self.meaning,
            "at_fault": at_fault,
            "what_to_do": self.remedy,
            "metrics": self.metrics,
            "metric_query": self.metric_query(),
            "log_query": self.log_query(),
            "page": format!("{PAGE}#{}", self.reason.as_str()),
        })
    }

    /// Its section of the page.
    #[cfg(test)]
    fn section(self) -> String {
        let status = match self.status {
            Some(status) => format!("Status: {status}."),
            None => "There is no reply: it is in log and metrics alone.".to_owned(),
        };
        let steps: Vec<_> = self
            .remedy
            .iter()
            .map(|step| format!("- {step}\n"))
            .collect();
        let metrics: Vec<_> = self.metrics.iter().map(|it| format!("`{it}`")).collect();
        format!(
            "## `{}`\n\n{} {status}\n\nAt fault: {}.\n\n{}\nMetrics: {}.\n\n```promql\n{}\n```\n\n```sh no-run: it reads the log of a running proxy\n{}\n```\n",
            self.reason.as_str(),
            self.meaning,
            self.at_fault(),
            steps.concat(),
            metrics.join(", "),
            self.metric_query(),
            self.log_query(),
        )
    }
}

/// What `ambassador explain --reason` prints.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.reason.as_str();
        writeln!(f, "{word}: {}\n", self.meaning)?;
        writeln!(
            f,
            "status    {}",
            self.status.unwrap_or("none: there is no reply")
        )?;
        writeln!(f, "at fault  {}", self.at_fault())?;
        for (at, step) in self.remedy.iter().enumerate() {
            let label = if at == 0 { "to do" } else { "" };
            writeln!(f, "{label:<9} {step}")?;
        }
        writeln!(f, "metrics   {}", self.metrics.join(", "))?;
        writeln!(f, "metric    {}", self.metric_query())?;
        writeln!(f, "log       {}", self.log_query())?;
        write!(f, "page      {PAGE}#{word}")
    }
}

#[cfg(test)]
mod tests;
