//! What a request shows about who sends it, added on the way out: secrets, and the
//! credentials made of them. No I/O: the control side reads files and asks servers.

pub(crate) mod secret;
