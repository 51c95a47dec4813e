//! Configurations of the proxies that are compared: one worker, a pool of
//! connections, retries, request ids, statistics, and one request in a hundred
//! logged, each by its own means. They listen on 8081 (HTTP) and 8082 (TCP) and
//! call 9000 and 9001.

pub mod tls;

use std::path::Path;

/// The ambassador: listeners, and what `more` says.
pub fn ambassador(directory: &Path, more: &str) -> String {
    format!(
        "telemetry: {{ access_log: {{ path: {}, sample: 1% }} }}\n\
         defaults: {{ pool: {{ max_connections: 1024, max_pending: 16384, max_requests: 16384, max_idle: 1024, idle_timeout: 2s }} }}\n\
         listeners:\n  \
         - {{ name: http, bind: 127.0.0.1:8081, protocol: http }}\n  \
         - {{ name: tcp, bind: 127.0.0.1:8082, protocol: tcp, upstream: opaque }}\n\
         {more}",
        directory.join("access.log").display()
    )
}

/// Upstreams that are meant by name and by address.
pub fn upstreams() -> String {
    "upstreams:\n  \
     web: { hosts: [bench.test, \"10.0.0.0/8:9000\"], endpoints: [\"127.0.0.1:9000\"] }\n  \
     opaque: { hosts: [\"10.0.0.0/8:9001\"], endpoints: [\"127.0.0.1:9001\"], protocol: tcp }\n"
        .to_owned()
}

/// The upstream of HTTP, with all that can be done for a request. What would
/// refuse one is set so high that it does not.
pub fn every_policy() -> String {
    with(
        "timeouts: { first_byte: 5s, per_try: 5s, request: 10s }, \
         retry: { attempts: 3, on: [connect-failure, reset, 429, 500-599], \
         budget: { ratio: 20%, min_per_second: 10 } }, \
         circuit_breaker: { failures: 5, window: 10s }, \
         rate_limit: { requests_per_second: 10000000, burst: 1000000 }, \
         load_balancing: peak_ewma, outlier: { consecutive: 5, success_rate: on }, \
         concurrency: { adaptive: on, min: 256 }, hedge: { after: p95, budget: 5% }",
    )
}

/// The same, with what is on by default off.
pub fn no_policy() -> String {
    with(
        "timeouts: { request: none }, retry: { attempts: 1, methods: [] }, \
         circuit_breaker: { failures: off }, outlier: { consecutive: off }",
    )
}

fn with(policies: &str) -> String {
    format!(
        "upstreams:\n  \
         web: {{ hosts: [bench.test], endpoints: [\"127.0.0.1:9000\"], {policies} }}\n  \
         opaque: {{ endpoints: [\"127.0.0.1:9001\"], protocol: tcp }}\n"
    )
}

/// Where a second process listens that serves the upstream of HTTP.
pub const SECOND_ENDPOINT: u16 = 9100;

/// The upstream of HTTP as two processes: one could not keep two shards busy.
pub fn two_endpoints() -> String {
    format!(
        "upstreams:\n  \
         web: {{ hosts: [bench.test], endpoints: [\"127.0.0.1:9000\", \"127.0.0.1:{SECOND_ENDPOINT}\"] }}\n  \
         opaque: {{ endpoints: [\"127.0.0.1:9001\"], protocol: tcp }}\n"
    )
}

/// The usual upstreams among a thousand others.
pub fn many_upstreams() -> String {
    let mut text = upstreams();
    for number in 0..998 {
        text.push_str(&format!(
            "  other-{number}: {{ hosts: [\"*.other-{number}.test\", other-{number}.test], \
             endpoints: [\"127.0.0.1:9\"] }}\n"
        ));
    }
    text
}

/// The same behind a thousand routes, the last of which matches.
pub fn many_routes() -> String {
    let mut text = upstreams();
    text.push_str("routes:\n");
    for number in 0..999 {
        text.push_str(&format!(
            "  - {{ match: {{ host: bench.test, path_prefix: /other/{number} }}, upstream: web }}\n"
        ));
    }
    text.push_str("  - { match: { host: bench.test }, upstream: web }\n");
    text
}

/// nginx with the stream module.
pub fn nginx(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         daemon off;\nworker_processes 1;\npid {directory}/nginx.pid;\n\
         error_log {directory}/error.log crit;\nworker_rlimit_nofile 20000;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\n  \
         split_clients $request_id $logged {{ 1% 1; * 0; }}\n  \
         access_log {directory}/access.log combined buffer=64k if=$logged;\n  \
         keepalive_requests 100000000;\n  \
         client_body_temp_path {directory}/b;\n  proxy_temp_path {directory}/p;\n  \
         fastcgi_temp_path {directory}/f;\n  uwsgi_temp_path {directory}/u;\n  \
         scgi_temp_path {directory}/s;\n  \
         upstream web {{ server 127.0.0.1:9000 max_fails=5; keepalive 1024; keepalive_requests 100000000; }}\n  \
         server {{\n    listen 127.0.0.1:8081 backlog=4096 reuseport;\n    \
         location = /status {{ stub_status; }}\n    \
         location / {{\n      proxy_pass http://web;\n      proxy_http_version 1.1;\n      \
         proxy_set_header Connection \"\";\n      proxy_set_header X-Request-Id $request_id;\n      \
         proxy_next_upstream error timeout;\n      proxy_next_upstream_tries 3;\n      \
         proxy_buffering off;\n    }}\n  }}\n}}\n\
         stream {{\n  upstream opaque {{ server 127.0.0.1:9001; }}\n  \
         server {{ listen 127.0.0.1:8082 backlog=4096 reuseport; proxy_pass opaque; }}\n}}\n"
    )
}

/// HAProxy.
pub fn haproxy(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "global\n  nbthread 1\n  maxconn 9000\n  log {directory}/none.sock sample 1:100 local0\n\
         defaults\n  timeout connect 5s\n  timeout client 5m\n  timeout server 5m\n  retries 3\n  \
         option redispatch\n  log global\n\
         frontend http\n  mode http\n  option httplog\n  bind 127.0.0.1:8081 backlog 4096\n  \
         unique-id-format %{{+X}}o\\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid\n  \
         unique-id-header X-Request-Id\n  default_backend web\n\
         backend web\n  mode http\n  http-reuse always\n  retry-on conn-failure empty-response\n  \
         server one 127.0.0.1:9000 pool-max-conn 1024 observe layer4\n\
         frontend tcp\n  mode tcp\n  bind 127.0.0.1:8082 backlog 4096\n  default_backend opaque\n\
         backend opaque\n  mode tcp\n  server one 127.0.0.1:9001\n"
    )
}

/// Envoy.
pub fn envoy(directory: &Path) -> String {
    let log = directory.join("access.log");
    format!(
        r#"admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 9901 }} }} }}
static_resources:
  listeners:
  - name: http
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: 8081 }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          generate_request_id: true
          access_log:
          - name: envoy.access_loggers.file
            filter: {{ runtime_filter: {{ runtime_key: logged, percent_sampled: {{ numerator: 1, denominator: HUNDRED }} }} }}
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {log}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{ prefix: "/" }}
                route: {{ cluster: web, retry_policy: {{ retry_on: "connect-failure,reset", num_retries: 2 }} }}
  - name: tcp
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: 8082 }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: opaque
  clusters:
  - name: web
    connect_timeout: 5s
    circuit_breakers: &limits {{ thresholds: [{{ max_connections: 8192, max_pending_requests: 8192, max_requests: 8192 }}] }}
    outlier_detection: {{ consecutive_5xx: 5 }}
    load_assignment: {{ cluster_name: web, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 9000 }} }} }} }}] }}] }}
  - name: opaque
    connect_timeout: 5s
    circuit_breakers: *limits
    load_assignment: {{ cluster_name: opaque, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 9001 }} }} }} }}] }}] }}
"#,
        log = log.display()
    )
}
