//! `circuit_breaker`: one of two forms of threshold, or none.

use std::time::Duration;

use super::failure_statuses::FailureStatuses;
use crate::config::read::Place;
use crate::config::setting::{Layer, settings};
use crate::config::values::{Count, LeastShare, OrOff, Period, Switch};
use crate::policy::breaker::{self, FAILURES_MAX, Ratio, Trip};

/// What the layers so far say. The settings of a breaker hold only the threshold in
/// effect, but a later layer may return to the other form.
#[derive(Debug, Clone)]
pub(in crate::config) struct Written {
    failures: Option<u32>,
    ratio: Option<Ratio>,
    window: Duration,
    consecutive: Option<u32>,
    sleep: Duration,
    failure_statuses: FailureStatuses,
    pub(super) kernel_fail_fast: bool,
}

settings! {
    /// When the circuit of an upstream opens, so that its requests fail at once.
    CircuitBreaker for Written as breaker, checked by one_form {
        /// This many failures within `window` open the circuit. `off`: no number
        /// does. It replaces an inherited `consecutive`.
        failures: OrOff<Count<1, FAILURES_MAX>> = breaker.failures,
        /// The failures must also be this share of all counted results, within
        /// `window` or within its last tenth. `off`: their number is enough. It
        /// cannot be combined with `consecutive`, and replaces an inherited one.
        ratio: OrOff<LeastShare> = breaker.ratio,
        /// How long a failure or success counts.
        window: Period = breaker.window,
        /// How long the circuit is open before one request probes the upstream. A
        /// random time of up to a tenth is added.
        sleep: Period = breaker.sleep,
        /// This many failures in a row open the circuit, instead of `failures`
        /// and `ratio` within `window`.
        consecutive: OrOff<Count<1>> = breaker.consecutive,
        /// Statuses that count as failures, like failed connects, resets and
        /// timeouts. `{ grpc: [...] }` names codes of gRPC calls, which count with
        /// `protocol: grpc`. What a server answers with `deadline-exceeded` counts
        /// as a timeout where it was given one of ours.
        failure_statuses: FailureStatuses [of_requests] = breaker.failure_statuses,
        /// Whether the kernel refuses captured connects (ECONNREFUSED) while the
        /// circuit is open. After `sleep` it admits one, then one more each time
        /// `timeouts.connect` has passed without a result. `on` needs
        /// `capture.mode: ebpf` and, in `hosts`, an address, CIDR or whole name
        /// whose addresses no other upstream has. An address that names turn out
        /// to share is not refused; a warning is logged. The kernel knows
        /// addresses only, so it also refuses connects to that address that a
        /// wildcard or route would have sent to another upstream. In `defaults`
        /// it applies to the upstreams that can have it.
        kernel_fail_fast: Switch
            [not_in_routes("is for a whole upstream: connects come before there is a request to route")]
            = breaker.kernel_fail_fast,
    }
}

/// The nearer layer has the say, and says one of the two.
fn one_form(written: &CircuitBreaker, place: &Place, breaker: &mut Written, layer: &mut Layer<'_>) {
    let failures = written.failures.as_ref();
    let ratio = written
        .ratio
        .as_ref()
        .filter(|ratio| ratio.value.0.is_some());
    if let Some(consecutive) = written.consecutive.as_ref() {
        let both = match (failures.and_then(|failures| failures.value.0), ratio) {
            (Some(_), _) => Some("has failures or consecutive, not both"),
            (None, Some(_)) => Some("has ratio or consecutive, not both"),
            (None, None) => None,
        };
        if let Some(what) = both.filter(|_| consecutive.value.0.is_some()) {
            layer.findings.mistake(place, what);
        }
        return;
    }
    let failures = failures.map(|failures| failures.place.line);
    let rolling = failures.or(ratio.map(|ratio| ratio.place.line));
    if let Some(line) = rolling
        && breaker.consecutive.take().is_some()
    {
        layer.note("circuit_breaker.consecutive", line);
    }
}

impl Written {
    pub(super) fn settings(&self) -> breaker::Settings {
        let trip = match (self.consecutive, self.failures) {
            (Some(failures), _) => Trip::Consecutive(failures),
            (None, Some(failures)) => Trip::Rolling {
                failures,
                window: self.window,
                ratio: self.ratio,
            },
            (None, None) => Trip::Never,
        };
        breaker::Settings {
            trip,
            sleep: self.sleep,
            failure_statuses: self.failure_statuses.statuses,
            failure_codes: self.failure_statuses.codes,
            kernel_fail_fast: self.kernel_fail_fast,
        }
    }

    /// Whether the key is of a form that is not in effect.
    pub(super) fn hides(&self, key: &str) -> bool {
        match key.strip_prefix("circuit_breaker.") {
            Some("failures") => self.consecutive.is_some(),
            Some("ratio" | "window") => self.consecutive.is_some() || self.failures.is_none(),
            _ => false,
        }
    }
}

impl From<&breaker::Settings> for Written {
    fn from(settings: &breaker::Settings) -> Self {
        let mut written = Self {
            failures: None,
            ratio: None,
            window: Duration::ZERO,
            consecutive: None,
            sleep: settings.sleep,
            failure_statuses: FailureStatuses {
                statuses: settings.failure_statuses,
                codes: settings.failure_codes,
            },
            kernel_fail_fast: settings.kernel_fail_fast,
        };
        // The default first: what a later layer returns to.
        for trip in [breaker::Settings::default().trip, settings.trip] {
            match trip {
                Trip::Never => written.failures = None,
                Trip::Consecutive(failures) => written.consecutive = Some(failures),
                Trip::Rolling {
                    failures,
                    window,
                    ratio,
                } => {
                    written.failures = Some(failures);
                    (written.window, written.ratio) = (window, ratio);
                }
            }
        }
        written
    }
}

impl Default for Written {
    fn default() -> Self {
        Self::from(&breaker::Settings::default())
    }
}
