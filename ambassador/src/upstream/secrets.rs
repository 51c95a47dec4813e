//! What requests to an upstream carry that programs do not have.

use std::sync::Arc;

use crate::upstream::credential::UpstreamCredential;
use crate::upstream::placeholders::UpstreamPlaceholders;

/// What requests to an upstream carry that programs do not have. In one place, as most
/// have none of it.
pub(crate) struct UpstreamSecrets {
    /// What they show, where the upstream has `auth`.
    pub credential: Option<Arc<UpstreamCredential>>,
    /// What stands in for placeholders in them, where there are any.
    pub placeholders: Option<Arc<UpstreamPlaceholders>>,
}
