//! End to end: one binary, a module per behaviour, each test on both backends
//! where the data path is concerned.

mod access_log;
mod admin;
mod backpressure;
mod balancing;
mod bodies;
mod breaker;
mod capture;
mod capture_dns;
mod capture_failure;
mod capture_reload;
mod capture_scope;
mod command_line;
mod connections;
mod drain;
mod exec;
mod exec_killed;
mod exec_terminal;
mod forwarding;
mod harness;
mod headers;
mod interim;
mod iptables;
mod limits;
mod opaque;
mod pool;
mod programs;
mod reload;
mod retries;
mod routing;
mod scale;
mod server_name;
mod smuggling;
mod timeouts;
mod tokens;
mod tunnels;
