//! Puts the BPF object inside the binary. `cargo xtask build` makes it and
//! names it in AMBASSADOR_BPF_OBJECT; without it the binary holds an empty one
//! and says so when capture is asked for.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=AMBASSADOR_BPF_OBJECT");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("capture.o");
    match env::var_os("AMBASSADOR_BPF_OBJECT") {
        Some(object) => {
            let object = PathBuf::from(object);
            println!("cargo::rerun-if-changed={}", object.display());
            fs::copy(&object, &out).unwrap_or_else(|error| {
                panic!("AMBASSADOR_BPF_OBJECT: {}: {error}", object.display())
            });
        }
        None => fs::write(&out, b"").expect("OUT_DIR is writable"),
    }
}
