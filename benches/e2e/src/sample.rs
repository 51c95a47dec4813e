//! What one variant did in one scenario, once.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::distribution::{Distribution, Merged};

/// What is measured. Times in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// Answers in the window.
    pub requests: u64,
    /// Answers per second.
    pub per_second: f64,
    /// Latency, from when a request was due.
    pub p50: f64,
    /// The same.
    pub p99: f64,
    /// The same.
    pub p999: f64,
    /// The connect() call, where each request has a connection of its own.
    pub connect_p50: Option<f64>,
    /// The same.
    pub connect_p99: Option<f64>,
    /// Time of the proxy on a CPU, per request; none without a proxy.
    pub cpu: Option<f64>,
    /// How many CPUs the proxy kept busy.
    pub proxy_cpus: Option<f64>,
    /// Requests that the generator itself sent more than a millisecond late, of
    /// all; none in a closed loop.
    pub late: Option<f64>,
    /// Part of the machine's time that others had, and how often the sample was
    /// taken again for that.
    pub foreign: f64,
    /// The same.
    pub repeats: u32,
    /// What the percentiles are of; of each generator.
    #[serde(skip)]
    pub latency: Vec<Distribution>,
    /// The same of the connect() call.
    #[serde(skip)]
    pub connect: Vec<Distribution>,
}

impl Sample {
    /// From the reports of the generators, which worked at the same time, and
    /// the time that the proxy, if there is one, had meanwhile.
    pub fn read(reports: &[Value], proxy: Option<Duration>) -> Result<Self, String> {
        let sum = |figure: &dyn Fn(&Value) -> Option<u64>| reports.iter().map(figure).sum();
        let errors: Option<u64> = sum(&|report| report["errors_total"].as_u64());
        let requests: Option<u64> = sum(&|report| report["requests"].as_u64());
        let (errors, requests) = (errors.unwrap_or(u64::MAX), requests.unwrap_or(0));
        if requests == 0 || errors.saturating_mul(1000) > requests {
            let kinds: Vec<&Value> = reports.iter().map(|report| &report["errors"]).collect();
            return Err(format!(
                "{errors} errors beside {requests} answers: {kinds:?}"
            ));
        }
        let seconds = reports[0]["seconds"].as_f64().unwrap_or(1.0);
        let rates = reports.iter();
        let per_second: f64 = rates
            .filter_map(|report| report["requests_per_second"].as_f64())
            .sum();
        let cpu = proxy.map(|time| time.as_secs_f64() * 1e6 / (per_second * seconds));
        if cpu.is_some_and(|cpu| cpu < 0.1) {
            return Err("the proxy did nothing: requests went past it".to_owned());
        }
        let distributions = |of: &str| -> Vec<Distribution> {
            let read = |report: &Value| Distribution::read(&report[of]);
            reports.iter().filter_map(read).collect()
        };
        let (latency, connect) = (distributions("latency"), distributions("connect_call"));
        let (latencies, connects) = (Merged::of(&latency), Merged::of(&connect));
        let latencies = latencies.ok_or("a generator gave no distribution")?;
        let late: Option<u64> = sum(&|report| report["open_loop"]["generator_late"].as_u64());
        Ok(Self {
            requests,
            per_second,
            p50: latencies.quantile(0.5),
            p99: latencies.quantile(0.99),
            p999: latencies.quantile(0.999),
            connect_p50: connects.as_ref().map(|times| times.quantile(0.5)),
            connect_p99: connects.as_ref().map(|times| times.quantile(0.99)),
            cpu,
            proxy_cpus: proxy.map(|time| time.as_secs_f64() / seconds),
            late: late.map(|late| late as f64 / requests as f64),
            foreign: 0.0,
            repeats: 0,
            latency,
            connect,
        })
    }
}
