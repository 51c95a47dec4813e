//! What servers of credentials answer: no input panics, nothing is valid for longer than
//! a month, and no message repeats the secret of the question.

#![no_main]

use std::time::Duration;

use ambassador::testing::control::credentials::lifetimes;
use libfuzzer_sys::fuzz_target;

const SENT: &str = "s3cret-of-the-question";
const NOW: u64 = 1_700_000_000;

fuzz_target!(|bytes: &[u8]| {
    for read in lifetimes(bytes, SENT.as_bytes(), NOW) {
        match read {
            Ok(lifetime) => {
                assert!(lifetime >= Duration::from_secs(1));
                assert!(lifetime <= Duration::from_secs(30 * 86_400));
            }
            Err(why) => assert!(!why.contains(SENT) && !why.contains('\n'), "{why}"),
        }
    }
});
