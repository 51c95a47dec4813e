//! The shared credentials file of AWS: no input panics, and no message has a key in it.

#![no_main]

use ambassador::testing::credential::{Secret, aws_profile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file = Secret::from(bytes.to_vec());
    match aws_profile::keys(&file, "default") {
        // One line.
        Ok(keys) => assert!(!keys.id.is_empty() && !keys.id.contains('\n')),
        Err(why) => assert!(why.to_string().len() < 80),
    }
});
