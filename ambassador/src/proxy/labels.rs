//! Translates results of requests and tries into labels of metrics and logs.

use crate::message::grpc::Code;
use crate::message::{Method, Reason};
use crate::policy::retry::Cause;
use crate::telemetry::{GrpcStatus, MethodLabel, ReasonLabel, RetryCause};

impl From<Method> for MethodLabel {
    fn from(method: Method) -> Self {
        match method {
            Method::Get => Self::Get,
            Method::Head => Self::Head,
            Method::Post => Self::Post,
            Method::Put => Self::Put,
            Method::Delete => Self::Delete,
            Method::Connect => Self::Connect,
            Method::Options => Self::Options,
            Method::Trace => Self::Trace,
            Method::Patch => Self::Patch,
            Method::Other => Self::Other,
        }
    }
}

impl From<Reason> for ReasonLabel {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NoEndpoint => Self::NoEndpoint,
            Reason::ConnectFailed => Self::ConnectFailed,
            Reason::ConnectTimeout => Self::ConnectTimeout,
            Reason::UpstreamReset => Self::UpstreamReset,
            Reason::ProtocolError => Self::ProtocolError,
            Reason::TlsFailed => Self::TlsFailed,
            Reason::RequestTimeout => Self::RequestTimeout,
            Reason::TryTimeout => Self::TryTimeout,
            Reason::CircuitOpen => Self::CircuitOpen,
            Reason::RetryBudget => Self::RetryBudget,
            Reason::RateLimited => Self::RateLimited,
            Reason::Overloaded => Self::Overloaded,
            Reason::NoRoute => Self::NoRoute,
            Reason::Loop => Self::Loop,
            Reason::BadRequest => Self::BadRequest,
            Reason::HeadersTooLarge => Self::HeadersTooLarge,
            Reason::AuthUnavailable => Self::AuthUnavailable,
            Reason::FaultInjected => Self::FaultInjected,
        }
    }
}

impl From<Code> for GrpcStatus {
    fn from(code: Code) -> Self {
        match code {
            Code::Ok => Self::Ok,
            Code::Cancelled => Self::Cancelled,
            Code::Unknown => Self::Unknown,
            Code::InvalidArgument => Self::InvalidArgument,
            Code::DeadlineExceeded => Self::DeadlineExceeded,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::AlreadyExists,
            Code::PermissionDenied => Self::PermissionDenied,
            Code::ResourceExhausted => Self::ResourceExhausted,
            Code::FailedPrecondition => Self::FailedPrecondition,
            Code::Aborted => Self::Aborted,
            Code::OutOfRange => Self::OutOfRange,
            Code::Unimplemented => Self::Unimplemented,
            Code::Internal => Self::Internal,
            Code::Unavailable => Self::Unavailable,
            Code::DataLoss => Self::DataLoss,
            Code::Unauthenticated => Self::Unauthenticated,
        }
    }
}

impl From<Cause> for RetryCause {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::ConnectFailure => Self::ConnectFailure,
            Cause::Reset => Self::Reset,
            Cause::TryTimeout => Self::TryTimeout,
            Cause::Malformed => Self::ProtocolError,
            Cause::Status(429) => Self::Status429,
            Cause::Status(500) => Self::Status500,
            Cause::Status(502) => Self::Status502,
            Cause::Status(503) => Self::Status503,
            Cause::Status(504) => Self::Status504,
            Cause::Status(_) => Self::OtherStatus,
            Cause::Code(Code::Unavailable) => Self::Unavailable,
            Cause::Code(Code::ResourceExhausted) => Self::ResourceExhausted,
            Cause::Code(_) => Self::OtherCode,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::reasons::Explanation;

    #[test]
    fn the_label_of_a_reason_is_the_word_of_its_header() {
        for reason in Reason::ALL {
            assert_eq!(ReasonLabel::from(reason).as_str(), reason.as_str());
        }
    }

    #[test]
    fn the_label_of_a_code_is_its_name() {
        for (code, label) in Code::ALL.iter().zip(GrpcStatus::ALL) {
            assert_eq!(GrpcStatus::from(*code), *label);
            assert_eq!(label.as_str(), code.as_str());
        }
    }

    #[test]
    fn the_label_of_a_method_is_its_name() {
        let methods = MethodLabel::ALL.iter();
        for label in methods.filter(|label| **label != MethodLabel::Other) {
            let method = Method::parse(label.as_str().as_bytes());
            assert_eq!(MethodLabel::from(method), *label);
        }
        assert_eq!(MethodLabel::from(Method::parse(b"get")), MethodLabel::Other);
    }

    #[test]
    fn a_reply_has_the_status_that_is_explained() {
        for reason in Reason::ALL {
            let explained = Explanation::of(reason.into()).to_json();
            let status = explained["status"].as_str().expect("there is a reply");
            let is_its_own = status.contains(&reason.status().to_string());
            assert!(is_its_own || reason == Reason::RetryBudget, "{explained}");
        }
    }
}
