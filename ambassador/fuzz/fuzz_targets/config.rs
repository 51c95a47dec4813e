//! A configuration file: no input panics, each is either taken or told what is
//! wrong with it, and what is taken can be shown and explained.

#![no_main]

use ambassador::testing::config::{explain, load_str};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match load_str("f", text) {
        Ok(checked) => {
            let _ = checked.effective();
            for destination in ["http://api.example/v1?a=b", "10.1.2.3:443"] {
                let _ = explain::explain(&checked, destination).map(|shown| shown.to_json());
            }
        }
        Err(mistakes) => assert!(!mistakes.to_string().is_empty()),
    }
});
