//! `health_check`: how endpoints are asked whether they are fit for requests.

use crate::config::setting::settings;
use crate::config::values::{Count, GrpcService, OrOff, Period};
use crate::policy::health_check;

/// With more in a row nothing would be found for minutes.
const IN_A_ROW_MAX: u32 = 100;

settings! {
    /// How endpoints are asked whether they are fit for requests. One that is not gets
    /// none, unless none is.
    HealthCheck for health_check::Settings as check {
        /// The service that `grpc.health.v1.Health/Check` is called for, as `shop.Cart`;
        /// `""` asks for the server as a whole. `SERVING` is a good check, and so is
        /// `UNIMPLEMENTED`, as for clients of gRPC; all else is a failed one. `off`:
        /// nothing is asked.
        grpc: OrOff<GrpcService> = check.grpc,
        /// How long after one check of an endpoint the next one follows, and up to a
        /// tenth more. The first one is anywhere in an interval.
        interval: Period = check.interval,
        /// How long a check may take, connecting included.
        timeout: Period = check.timeout,
        /// This many good checks in a row give an endpoint requests again.
        healthy: Count<1, IN_A_ROW_MAX> = check.healthy,
        /// This many failed checks in a row take requests from an endpoint.
        unhealthy: Count<1, IN_A_ROW_MAX> = check.unhealthy,
    }
}
