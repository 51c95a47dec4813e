//! The contract between the BPF programs and the proxy: keys, values, limits
//! and map names. No dependencies, no logic that only one side needs.
#![no_std]
