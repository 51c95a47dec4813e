//! `circuit_breaker`: one of two forms of threshold, or none.

use std::time::Duration;

use crate::config::read::Place;
use crate::config::setting::{Layer, settings};
use crate::config::values::{Count, LeastShare, OrOff, Period, Statuses, Switch};
use crate::policy::breaker::{self, FAILURES_MAX, Ratio, Trip};
use crate::policy::statuses;

/// What the layers so far say. The settings of a breaker hold only the threshold in
/// effect, but a later layer may return to the other form.
#[derive(Debug, Clone)]
pub(in crate::config) struct Written {
    failures: Option<u32>,
    ratio: Option<Ratio>,
    window: Duration,
    consecutive: Option<u32>,
    sleep: Duration,
    failure_statuses: statuses::Statuses,
    pub(super) kernel_fail_fast: bool,
}

settings! {
    /// When the circuit of an upstream opens, so that its requests fail at once.
    CircuitBreaker for Written as breaker, checked by one_form {
        /// This many failures within `window` open it; `off`:
        /// none do. Written beside an inherited `consecutive`, it takes its place.
        failures: OrOff<Count<1, FAILURES_MAX>> = breaker.failures,
        /// The share of all that was counted which the failures have to be as
        /// well, within `window` or within its last tenth; `off`: their number is
        /// enough. Not together with `consecutive`; written beside an inherited
        /// one, it takes its place.
        ratio: OrOff<LeastShare> = breaker.ratio,
        /// How long a failure or success counts.
        window: Period = breaker.window,
        /// How long it is open before one request may probe, or up to a tenth
        /// longer, by chance.
        sleep: Period = breaker.sleep,
        /// This many failures without a success between them open it, instead
        /// of `failures` and `ratio` within `window`.
        consecutive: OrOff<Count<1>> = breaker.consecutive,
        /// Statuses that are failures, as connect failures, resets and timeouts are.
        failure_statuses: Statuses [of_requests] = breaker.failure_statuses,
        /// Whether captured connects get ECONNREFUSED from the kernel while it is
        /// open. After `sleep` one goes through, then one more whenever
        /// `timeouts.connect` has passed and nothing was decided. `on` needs
        /// `capture.mode: ebpf` and, in `hosts`, an address, CIDR or whole name
        /// that shares no address with another upstream's; an address that names
        /// turn out to share is left alone, with a warning. The kernel goes by
        /// address alone: what would ask there for another upstream, by a
        /// wildcard or route, is refused as well. In `defaults` it is for the
        /// upstreams that can have it.
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
            failure_statuses: self.failure_statuses,
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
            failure_statuses: settings.failure_statuses,
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
