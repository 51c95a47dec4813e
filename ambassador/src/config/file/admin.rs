//! `admin`: where the admin API listens, and who may use it.

use super::overlap;
use crate::config::checked;
use crate::config::read::Place;
use crate::config::setting::{Layer, settings};
use crate::config::values::{Bind, FilePath};

settings! {
    /// The admin API.
    Admin for checked::Admin as admin, checked by is_guarded {
        /// Where it listens: an address and port, or `unix:/path` (made with mode
        /// 0600). An address that is not loopback needs `token_file`; requests
        /// then need the token, except health, public keys and metrics.
        listen: Bind = admin.listen,
        /// A second address that serves `/livez`, `/readyz`, `/metrics` and
        /// `/jwks.json` only, for kubelet, Prometheus and who verifies tokens.
        /// Absent: none.
        metrics_listen: Bind = admin.metrics_listen,
        /// A file with a token. Requests that change something must carry it as
        /// `Authorization: Bearer`. Absent: such requests need the unix socket.
        token_file: FilePath = admin.token_file,
    }
}

fn is_guarded(written: &Admin, _: &Place, admin: &mut checked::Admin, layer: &mut Layer<'_>) {
    if let Some(listen) = written.listen.as_ref()
        && !admin.listen.is_local()
        && admin.token_file.is_none()
    {
        layer.findings.mistake_at(
            listen,
            "must be on loopback or a unix socket; off loopback it needs token_file \
             (for health and metrics alone use metrics_listen)",
        );
    }
    if let Some(bind) = written.metrics_listen.as_ref()
        && let Some(other) = overlap(&bind.value.0, &admin.listen)
    {
        let what = format!("is bound twice, admin.listen has {other}");
        layer.findings.mistake_at(bind, what);
    }
}
