//! nginx with one server, in a directory of a test's own.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::program::Running;
use crate::proxy::Scratch;
use crate::{Client, eventually};

/// Runs it in the foreground, in one process, and waits until it listens on an address.
/// `server` is what stands in its `server` block; relative paths begin in `scratch`.
///
/// # Panics
/// Where it does not start.
#[track_caller]
pub fn start(scratch: &Scratch, address: SocketAddr, server: &str) -> Running {
    let directory = scratch.path().display();
    // Workers of a root nginx are root too without a master process.
    let text = format!(
        "daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;\n\
         events {{}}\n\
         http {{\n  access_log off; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p;\n  \
         fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;\n  \
         server {{\n{server}\n}}\n}}\n"
    );
    let file = scratch.file("nginx.conf", &text);
    let mut nginx = Command::new("nginx");
    nginx.arg("-c").arg(file).arg("-p").arg(scratch.path());
    nginx.stdin(Stdio::null()).stdout(Stdio::null());
    let running = Running::start(nginx.stderr(Stdio::null()));
    eventually("nginx listens", Duration::from_secs(10), || {
        Client::try_connect(address).is_some()
    });
    running
}
