//! The form of the configuration in the environment: a variable per line, no
//! input panics.

#![no_main]

use ambassador::testing::config::from_env;
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 8] = [
    "LISTEN_ADDR",
    "UPSTREAM_HOST",
    "UPSTREAM_PORT",
    "PROTOCOL",
    "RETRY_MAX",
    "CIRCUIT_BREAKER_THRESHOLD",
    "METRICS_LISTEN_ADDR",
    "TLS_ENABLED",
];

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let values: Vec<&str> = text.lines().collect();
    let value = |name: &str| {
        let at = NAMES.iter().position(|known| *known == name)?;
        let value = values.get(at).filter(|value| !value.is_empty())?;
        Some((*value).to_owned())
    };
    if let Some(Err(mistakes)) = from_env(value) {
        assert!(!mistakes.to_string().is_empty());
    }
});
