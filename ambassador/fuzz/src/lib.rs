//! What the targets for HTTP/2 share: scripts of frames, and who reads them.

pub mod end;
pub mod frame;
pub mod h2_peer;
pub mod our_peer;
pub mod record;
pub mod script;
pub mod source;
