//! `telemetry`: the access log and traces.

use crate::config::checked::{self, Checked, LogTarget};
use crate::config::read::Scalar;
use crate::config::setting::settings;
use crate::config::values::{
    Kept, LogFormat, Optional, Percent, Propagation, fills, value_schemas,
};
use crate::message::trace;

settings! {
    /// What is reported.
    Telemetry for Checked as checked {
        /// One line for each request and each relayed connection. Absent: none.
        access_log: Optional<AccessLog> = checked.access_log,
        /// Traces in the headers of requests. Absent: the headers pass unchanged,
        /// and no trace is started. Empty: on, with the defaults.
        tracing: Optional<Tracing> = checked.tracing,
    }
}

settings! {
    /// What is done about traces. Each try of a request is a span of its own, whose
    /// id its upstream gets as the parent.
    Tracing for trace::Settings as tracing {
        /// The share of traces to sample about which the caller has not decided:
        /// those that begin here, and those of B3 without a decision.
        sample: Percent = tracing.sample,
        /// Which headers carry a trace on: `tracecontext` (`traceparent`,
        /// `tracestate`), `b3` (the single header, or the `x-b3-` ones where the
        /// caller has those), `baggage` (which passes, up to 180 members and 8 KiB);
        /// or `off`. Headers that are not named here pass as they are.
        propagate: Propagation = tracing.formats,
    }
}

settings! {
    /// The access log.
    AccessLog for checked::AccessLog as log {
        /// Where lines go; a file is appended to.
        path: LogPath = log.target,
        /// How a line is written: `json`, `logfmt`, or as a text (`{ template: ... }`).
        format: LogFormat = log.format,
        /// The share of requests and of relayed connections that is logged.
        sample: Percent = log.sample,
        /// What is logged whatever the sample says: what has `failed` (a reason, a
        /// status of 500 and above, an answer that is not whole, a code of a call that is
        /// its server's fault; relayed connections that were not closed in order), what
        /// was `retried`, and what took longer (`{ slow: 500ms }`).
        keep: Kept = log.keep,
    }
}

/// Where the access log goes.
#[derive(Debug, Clone)]
pub(in crate::config) struct LogPath(LogTarget);

impl Scalar for LogPath {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            // Only who made what is behind them may open these paths.
            "stdout" | "/dev/stdout" => Ok(Self(LogTarget::Stdout)),
            "stderr" | "/dev/stderr" => Ok(Self(LogTarget::Stderr)),
            path if path.starts_with('/') => Ok(Self(LogTarget::File(path.into()))),
            _ => Err("must be stdout, stderr or a path from the root".to_owned()),
        }
    }
}

fills! {
    LogPath => LogTarget, |target| Some(match target {
        LogTarget::Stdout => "stdout".into(),
        LogTarget::Stderr => "stderr".into(),
        LogTarget::File(path) => path.display().to_string().into(),
    });
}

value_schemas! {
    LogPath: { "type": "string", "format": "stdout, stderr or path" },
}
