//! The same with TLS: listeners that clients reach over TLS, and upstreams that are
//! reached over mutual TLS. Each protocol has a port of its own (`Protocol`), and the
//! server behind the proxies is nginx, the same for all.

use std::fmt::Write as _;
use std::path::Path;

use ambassador_tests::Authority;
use ambassador_tests::proxy::Scratch;

use crate::protocol::Protocol;

/// The file with the authority that has signed all of them.
pub const AUTHORITY: &str = "ca.pem";

/// Sizes of answers that the server behind the proxies knows.
const SIZES: [usize; 2] = [64, 1024];

/// Makes the certificates of one variant: `server` and `client`, each as a
/// certificate, as a key, and as both in one file.
pub fn certificates(scratch: &Scratch) -> Authority {
    let authority = Authority::new("benchmark");
    scratch.file(AUTHORITY, &authority.pem);
    let names = Protocol::ALL.map(Protocol::host);
    let leaves = [
        ("server", authority.issue(&names)),
        ("client", authority.issue(&["client.test"])),
    ];
    for (name, leaf) in leaves {
        leaf.write(scratch, name);
        scratch.file(
            &format!("{name}.both"),
            &format!("{}{}", leaf.pem, leaf.key),
        );
    }
    authority
}

/// The rest of the ambassador's configuration: more listeners, and upstreams.
/// Files are beside that of the configuration.
pub fn ambassador() -> String {
    let mut text = format!(
        "  - {{ name: tls, bind: 127.0.0.1:{}, protocol: http, tls: {{ cert: server.pem, key: server.key }} }}\n",
        Protocol::Tls.listener_port()
    );
    for protocol in Protocol::TO_TLS {
        let (name, port) = (protocol.name(), protocol.listener_port());
        let _ = writeln!(
            text,
            "  - {{ name: {name}, bind: 127.0.0.1:{port}, protocol: http }}"
        );
    }
    text.push_str(
        "upstreams:\n  \
         web: { hosts: [bench.test], endpoints: [\"127.0.0.1:9000\"] }\n  \
         opaque: { endpoints: [\"127.0.0.1:9001\"], protocol: tcp }\n",
    );
    for protocol in Protocol::TO_TLS {
        let (name, host, port) = (protocol.name(), protocol.host(), protocol.upstream_port());
        let _ = writeln!(
            text,
            "  {name}: {{ hosts: [{host}], endpoints: [\"127.0.0.1:{port}\"], \
             tls: {{ ca: ca.pem, cert: client.pem, key: client.key }} }}"
        );
    }
    text
}

/// Of nginx: what every server has, whatever it does.
fn nginx_with(directory: &Path, name: &str, main: &str, http: &str) -> String {
    let directory = directory.display();
    format!(
        "daemon off;\n{main}\npid {directory}/{name}.pid;\n\
         error_log {directory}/{name}.log crit;\nworker_rlimit_nofile 20000;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\n  keepalive_requests 100000000;\n  \
         client_body_temp_path {directory}/{name}.b;\n  proxy_temp_path {directory}/{name}.p;\n  \
         fastcgi_temp_path {directory}/{name}.f;\n  uwsgi_temp_path {directory}/{name}.u;\n  \
         scgi_temp_path {directory}/{name}.s;\n{http}}}\n"
    )
}

/// The server of a protocol whose upstream speaks TLS, as one process.
pub fn server(directory: &Path, protocol: Protocol) -> String {
    let (host, port) = (protocol.host(), protocol.upstream_port());
    let files = directory.display();
    let how = match protocol {
        // Nothing is kept, and nothing taken up again: each request costs a
        // handshake.
        Protocol::Anew => {
            "ssl_protocols TLSv1.3; ssl_session_tickets off; ssl_session_cache off; keepalive_timeout 0;"
        }
        Protocol::Mtls12 => "ssl_protocols TLSv1.2; keepalive_timeout 600s;",
        _ => "ssl_protocols TLSv1.3; keepalive_timeout 600s;",
    };
    let clients = match protocol {
        Protocol::Anew => String::new(),
        _ => format!("ssl_client_certificate {files}/{AUTHORITY}; ssl_verify_client on;"),
    };
    let answers: String = SIZES
        .iter()
        .map(|size| {
            let body = "x".repeat(*size);
            format!("    location = /{size} {{ return 200 \"{body}\"; }}\n")
        })
        .collect();
    let http = format!(
        "  access_log off;\n  \
         server {{\n    listen 127.0.0.1:{port} ssl backlog=4096;\n    server_name {host};\n    \
         ssl_certificate {files}/server.pem; ssl_certificate_key {files}/server.key;\n    \
         {how}\n    {clients}\n{answers}  }}\n"
    );
    nginx_with(
        directory,
        protocol.name(),
        "master_process off;\nuser root;",
        &http,
    )
}

/// nginx.
pub fn nginx(directory: &Path) -> String {
    let files = directory.display();
    let forward = |to: &str| {
        format!(
            "proxy_pass {to}; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
             proxy_set_header X-Request-Id $request_id; proxy_next_upstream error timeout; \
             proxy_next_upstream_tries 3; proxy_buffering off;"
        )
    };
    let mut http = format!(
        "  split_clients $request_id $logged {{ 1% 1; * 0; }}\n  \
         access_log {files}/access.log combined buffer=64k if=$logged;\n  \
         upstream web {{ server 127.0.0.1:9000 max_fails=5; keepalive 1024; keepalive_requests 100000000; }}\n  \
         server {{ listen 127.0.0.1:8081 backlog=4096 reuseport; location / {{ {clear} }} }}\n  \
         server {{ listen 127.0.0.1:{port} ssl backlog=4096 reuseport; \
         ssl_certificate {files}/server.pem; ssl_certificate_key {files}/server.key; \
         ssl_protocols TLSv1.2 TLSv1.3; location / {{ {clear} }} }}\n",
        clear = forward("http://web"),
        port = Protocol::Tls.listener_port(),
    );
    for protocol in Protocol::TO_TLS {
        let (name, host) = (protocol.name(), protocol.host());
        let _ = writeln!(
            http,
            "  upstream {name} {{ server 127.0.0.1:{to} max_fails=5; keepalive 1024; keepalive_requests 100000000; }}\n  \
             server {{ listen 127.0.0.1:{port} backlog=4096 reuseport; location / {{ {forward} \
             proxy_ssl_certificate {files}/client.pem; proxy_ssl_certificate_key {files}/client.key; \
             proxy_ssl_trusted_certificate {files}/{AUTHORITY}; proxy_ssl_verify on; \
             proxy_ssl_name {host}; proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.2 TLSv1.3; }} }}",
            to = protocol.upstream_port(),
            port = protocol.listener_port(),
            forward = forward(&format!("https://{name}")),
        );
    }
    nginx_with(directory, "nginx", "worker_processes 1;", &http)
}

/// HAProxy.
pub fn haproxy(directory: &Path) -> String {
    let files = directory.display();
    let request_id = "unique-id-format %{+X}o\\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid\n  \
                      unique-id-header X-Request-Id";
    let mut text = format!(
        "global\n  nbthread 1\n  maxconn 9000\n  log {files}/none.sock sample 1:100 local0\n\
         defaults\n  mode http\n  option httplog\n  timeout connect 5s\n  timeout client 5m\n  \
         timeout server 5m\n  retries 3\n  option redispatch\n  log global\n\
         frontend clear\n  bind 127.0.0.1:8081 backlog 4096\n  \
         bind 127.0.0.1:{port} backlog 4096 ssl crt {files}/server.both\n  \
         {request_id}\n  default_backend web\n\
         backend web\n  http-reuse always\n  retry-on conn-failure empty-response\n  \
         server one 127.0.0.1:9000 pool-max-conn 1024 observe layer4\n",
        port = Protocol::Tls.listener_port(),
    );
    for protocol in Protocol::TO_TLS {
        let _ = writeln!(
            text,
            "frontend {name}\n  bind 127.0.0.1:{port} backlog 4096\n  {request_id}\n  \
             default_backend to-{name}\n\
             backend to-{name}\n  http-reuse always\n  retry-on conn-failure empty-response\n  \
             server one 127.0.0.1:{to} pool-max-conn 1024 observe layer4 ssl verify required \
             ca-file {files}/{AUTHORITY} crt {files}/client.both sni str({host}) verifyhost {host}",
            name = protocol.name(),
            host = protocol.host(),
            port = protocol.listener_port(),
            to = protocol.upstream_port(),
        );
    }
    text
}

/// Envoy.
pub fn envoy(directory: &Path) -> String {
    let mut listeners = envoy_listener(directory, "clear", 8081, "web", "");
    let server = format!(
        "\n      transport_socket:\n        name: envoy.transport_sockets.tls\n        typed_config:\n          \
         \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext\n          \
         common_tls_context: {{ tls_certificates: [{}] }}",
        envoy_certificate(directory, "server")
    );
    let port = Protocol::Tls.listener_port();
    listeners += &envoy_listener(directory, "tls", port, "web", &server);
    let mut clusters = envoy_cluster("web", 9000, "");
    for protocol in Protocol::TO_TLS {
        let (name, port) = (protocol.name(), protocol.listener_port());
        listeners += &envoy_listener(directory, name, port, name, "");
        let client = format!(
            "\n    transport_socket:\n      name: envoy.transport_sockets.tls\n      typed_config:\n        \
             \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n        \
             sni: {host}\n        common_tls_context:\n          \
             tls_params: {{ tls_maximum_protocol_version: TLSv1_3 }}\n          \
             tls_certificates: [{certificate}]\n          \
             validation_context: {{ trusted_ca: {{ filename: {ca} }}, \
             match_typed_subject_alt_names: [{{ san_type: DNS, matcher: {{ exact: {host} }} }}] }}",
            host = protocol.host(),
            certificate = envoy_certificate(directory, "client"),
            ca = directory.join(AUTHORITY).display(),
        );
        clusters += &envoy_cluster(name, protocol.upstream_port(), &client);
    }
    format!(
        "admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 9901 }} }} }}\n\
         static_resources:\n  listeners:\n{listeners}  clusters:\n{clusters}"
    )
}

fn envoy_certificate(directory: &Path, name: &str) -> String {
    let file = |ending| {
        directory
            .join(format!("{name}.{ending}"))
            .display()
            .to_string()
    };
    format!(
        "{{ certificate_chain: {{ filename: {} }}, private_key: {{ filename: {} }} }}",
        file("pem"),
        file("key")
    )
}

fn envoy_listener(directory: &Path, name: &str, port: u16, cluster: &str, tls: &str) -> String {
    let log = directory.join("access.log");
    format!(
        r#"  - name: {name}
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {name}
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
                route: {{ cluster: {cluster}, retry_policy: {{ retry_on: "connect-failure,reset", num_retries: 2 }} }}{tls}
"#,
        log = log.display(),
    )
}

fn envoy_cluster(name: &str, port: u16, tls: &str) -> String {
    format!(
        r#"  - name: {name}
    connect_timeout: 5s
    circuit_breakers: {{ thresholds: [{{ max_connections: 8192, max_pending_requests: 8192, max_requests: 8192 }}] }}
    outlier_detection: {{ consecutive_5xx: 5 }}
    load_assignment: {{ cluster_name: {name}, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}] }}{tls}
"#
    )
}
