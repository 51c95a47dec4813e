#!/usr/bin/env bash
# CPU of a request, in us, of this proxy beside HAProxy and nginx: HTTP/2 to HTTP/2,
# HTTP/1.1 to HTTP/2 and HTTP/2 to HTTP/1.1, in clear. One thread each; the rounds of all
# take turns.
#
# usage: benches/http2.sh BINARY [ROUNDS [REQUESTS]]
set -euo pipefail
binary=$(realpath "$1") rounds=${2:-5} requests=${3:-100000}
source "$(dirname "$0")/beside.sh"

# What they forward to: 13 bytes.
mkdir -p www/h1 www/h2
printf 'hello, world\n' | tee www/h1/x >www/h2/x
start nghttpd nghttpd -a 127.0.0.1 --no-tls -d www 14801
cat >server.conf <<CONF
daemon off; master_process off; pid $work/server.nginx; error_log /dev/null;
events { worker_connections 1024; }
http { access_log off; keepalive_requests 1000000000;
    server { listen 127.0.0.1:14802; location / { root $work/www; } } }
CONF
start server nginx -c "$work/server.conf"

cat >ambassador.yaml <<CONF
workers: 1
admin: { listen: 127.0.0.1:14810 }
listeners:
  - { name: in, bind: 127.0.0.1:14811, protocol: http }
upstreams:
  h2: { endpoints: [127.0.0.1:14801], protocol: http2 }
  h1: { endpoints: [127.0.0.1:14802], pool: { max_connections: 1000, max_idle: 1000 } }
routes:
  - { match: { path_prefix: /h2 }, upstream: h2 }
  - { match: { path_prefix: /h1 }, upstream: h1 }
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
  bind 127.0.0.1:14821
  use_backend h2 if { path_beg /h2 }
  default_backend h1
backend h2
  server s 127.0.0.1:14801 proto h2
backend h1
  server s 127.0.0.1:14802
CONF
start haproxy haproxy -db -f haproxy.cfg
cat >nginx.conf <<CONF
daemon off; master_process off; pid $work/proxy.nginx; error_log /dev/null;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000000;
    upstream h1 { server 127.0.0.1:14802; keepalive 1000; keepalive_requests 1000000000; }
    server { listen 127.0.0.1:14831 http2;
        location / { proxy_pass http://h1; proxy_http_version 1.1; proxy_set_header Connection ""; } } }
CONF
start nginx nginx -c "$work/nginx.conf"

await 14801 14802 14811 14821 14831

# One round: us of CPU for each request.
round() { # NAME PORT PATH FLAGS...
    local name=$1 url=http://127.0.0.1:$2$3/x before after done
    shift 3
    before=$(used "$name")
    done=$(h2load -n "$requests" -t 1 "$@" "$url" | sed -n 's/.* \([0-9]*\) done.*/\1/p')
    after=$(used "$name")
    [ "$done" = "$requests" ] || { echo "$name: $done of $requests done" >&2; exit 1; }
    awk -v ns=$((after - before)) -v requests="$requests" \
        'BEGIN { printf "%.2f\n", ns / 1000 / requests }'
}

median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

printf '%-18s %12s %12s %12s %8s\n' "us of a request" ambassador haproxy nginx ratio
compare() { # NAME PATH FLAGS...
    local what=$1 path=$2 ours haproxy nginx=-
    shift 2
    rm -f ./*.us
    for _ in $(seq "$rounds"); do
        round ambassador 14811 "$path" "$@" >>ambassador.us
        round haproxy 14821 "$path" "$@" >>haproxy.us
        case $what in h2-h1*) round nginx 14831 "$path" "$@" >>nginx.us ;; esac
    done
    ours=$(median <ambassador.us) haproxy=$(median <haproxy.us)
    [ ! -e nginx.us ] || nginx=$(median <nginx.us)
    printf '%-18s %12s %12s %12s %8s\n' "$what" "$ours" "$haproxy" "$nginx" \
        "$(awk -v a="$ours" -v b="$haproxy" 'BEGIN { printf "%.2f", a / b }')"
}
compare h2-h2,4x25 /h2 -c 4 -m 25
compare h2-h2,50x1 /h2 -c 50 -m 1
compare h2-h2,1x1 /h2 -c 1 -m 1
compare h1-h2,50 /h2 -c 50 --h1
compare h2-h1,4x25 /h1 -c 4 -m 25
