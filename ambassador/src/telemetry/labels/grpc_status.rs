//! How calls of gRPC end.

labels! {
    /// The status of a gRPC call: `ambassador_requests_total`, and the log's
    /// `grpc_status`.
    pub GrpcStatus {
        /// The status of the call.
        Ok = "ok",
        /// The status of the call.
        Cancelled = "cancelled",
        /// The status of the call.
        Unknown = "unknown",
        /// The status of the call.
        InvalidArgument = "invalid-argument",
        /// The status of the call.
        DeadlineExceeded = "deadline-exceeded",
        /// The status of the call.
        NotFound = "not-found",
        /// The status of the call.
        AlreadyExists = "already-exists",
        /// The status of the call.
        PermissionDenied = "permission-denied",
        /// The status of the call.
        ResourceExhausted = "resource-exhausted",
        /// The status of the call.
        FailedPrecondition = "failed-precondition",
        /// The status of the call.
        Aborted = "aborted",
        /// The status of the call.
        OutOfRange = "out-of-range",
        /// The status of the call.
        Unimplemented = "unimplemented",
        /// The status of the call.
        Internal = "internal",
        /// The status of the call.
        Unavailable = "unavailable",
        /// The status of the call.
        DataLoss = "data-loss",
        /// The status of the call.
        Unauthenticated = "unauthenticated",
    }
}
