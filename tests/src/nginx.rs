//! nginx with one server, in a directory of a test's own.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::program::Running;
use crate::proxy::Scratch;
use crate::{Client, Protocol, eventually, ports};

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

/// Where a server of HTTP/1.1 is reached in the protocol of a column.
pub struct Front {
    /// The address that it is reached at.
    pub address: SocketAddr,
    _translator: Option<(Running, Scratch)>,
}

impl Front {
    /// The server itself, or nginx before it, which passes on what it gets.
    ///
    /// # Panics
    /// Where nginx does not start.
    #[track_caller]
    pub fn of(server: SocketAddr, protocol: Protocol) -> Front {
        if protocol == Protocol::Http1 {
            return Front {
                address: server,
                _translator: None,
            };
        }
        let scratch = Scratch::new();
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let block = format!(
            "listen {address} http2; client_max_body_size 0; location / {{ \
             proxy_pass http://{server}; proxy_http_version 1.1; \
             proxy_set_header Host $host; proxy_set_header Connection \"\"; }}"
        );
        Front {
            address,
            _translator: Some((start(&scratch, address, &block), scratch)),
        }
    }
}
