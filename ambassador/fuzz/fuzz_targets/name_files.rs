//! A workload's hosts and resolv.conf, and the answers of its name server: no
//! input panics, and nobody is asked more often or waited for longer than the C
//! library would.

#![no_main]

use std::time::Duration;

use ambassador::testing::control::name_files::{Fallback, ResolvConf, addresses};
use hickory_resolver::proto::op::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for name in ["localhost", "api.example", "a."] {
        // One address to a line at most.
        let lines = bytes.split(|byte| *byte == b'\n').count();
        assert!(addresses(bytes, name).len() <= lines);
    }
    let conf = ResolvConf::parse(bytes, Fallback::None);
    assert!(conf.servers.len() <= 3 && conf.search.len() <= 6);
    assert!(conf.ndots <= 15 && (1..=5).contains(&conf.attempts));
    assert!(conf.timeout <= Duration::from_secs(30));
    if let Ok(answer) = Message::from_vec(bytes) {
        // As it goes to the log.
        let _ = answer.to_string();
    }
});
