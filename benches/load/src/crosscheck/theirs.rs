//! What the programs print; nothing where it is not what is expected, or where
//! a request failed.

use super::Sample;

/// The report of `ambassador-load run`.
pub fn ours(text: &str) -> Option<Sample> {
    let report: serde_json::Value = serde_json::from_str(text).ok()?;
    if report["errors_total"] != 0 {
        return None;
    }
    Some(Sample {
        requests_per_second: report["requests_per_second"].as_f64()?,
        mean_us: report["latency"]["us"]["mean"].as_f64()?,
    })
}

/// The summary of wrk.
pub fn wrk(text: &str) -> Option<Sample> {
    if text.contains("Socket errors") || text.contains("Non-2xx") {
        return None;
    }
    Some(Sample {
        requests_per_second: after(text, "Requests/sec:")?.parse().ok()?,
        mean_us: microseconds(after(text, "Latency")?)?,
    })
}

/// The summary of h2load.
pub fn h2load(text: &str) -> Option<Sample> {
    let requests = text.lines().find(|line| line.starts_with("requests:"))?;
    if !requests.contains(" 0 failed, 0 errored, 0 timeout") {
        return None;
    }
    let finished = text.lines().find(|line| line.starts_with("finished in"))?;
    let rate = finished.split(", ").nth(1)?.strip_suffix(" req/s")?;
    let times = text
        .lines()
        .find_map(|line| line.strip_prefix("time for request:"))?;
    Some(Sample {
        requests_per_second: rate.parse().ok()?,
        mean_us: microseconds(times.split_whitespace().nth(2)?)?,
    })
}

/// The word after `label`.
fn after<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    text.split_once(label)?.1.split_whitespace().next()
}

/// A time with its unit, as both print it.
fn microseconds(text: &str) -> Option<f64> {
    let (number, factor) = [("us", 1.0), ("ms", 1e3), ("s", 1e6)]
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_they_print_is_understood() {
        let wrk_says = "  Thread Stats   Avg      Stdev     Max   +/- Stdev\n    \
            Latency     1.05ms   86.51us   2.61ms   91.04%\n    \
            Req/Sec    60.78k     2.93k   64.59k    85.00%\n\
            Requests/sec:  60475.17\nTransfer/sec:     61.88MB\n";
        let expected = Sample {
            requests_per_second: 60475.17,
            mean_us: 1050.0,
        };
        assert_eq!(wrk(wrk_says), Some(expected));
        assert_eq!(wrk(&format!("{wrk_says}Non-2xx or 3xx: 1")), None);

        let h2load_says = "finished in 2.00s, 71234.50 req/s, 72.89MB/s\n\
            requests: 142469 total, 142533 started, 142469 done, 142469 succeeded, 0 failed, \
            0 errored, 0 timeout\n\
            time for request:      105us      3.21ms       893us       112us    88.00%\n";
        let expected = Sample {
            requests_per_second: 71234.5,
            mean_us: 893.0,
        };
        assert_eq!(h2load(h2load_says), Some(expected));
        assert_eq!(h2load(&h2load_says.replace(" 0 failed", " 1 failed")), None);
    }
}
