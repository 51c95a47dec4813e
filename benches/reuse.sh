#!/bin/sh
# How many requests find an idle upstream connection, and how many connections
# there are, by workers and rate: reuse.sh AMBASSADOR AMBASSADOR_LOAD [SECONDS].
#
# An upstream (`ambassador-load serve`), the proxy with one listener, and 64 client
# connections that take turns, so that requests come by every shard. Prints the rows
# of the table in docs/benchmark.md. Loopback only; takes nine times SECONDS.
set -eu
program=$1 load=$2 seconds=${3:-20}
directory=$(mktemp -d)
started=
# shellcheck disable=SC2086
trap 'kill $started 2>/dev/null || true; rm -rf "$directory"' EXIT
trap 'exit 1' INT TERM

# The sum of a metric's samples whose line has this text.
metric() {
    curl -sf http://127.0.0.1:15071/metrics |
        awk -v name="$1" -v with="$2" 'index($1, name) == 1 && index($0, with) { sum += $NF } END { print sum + 0 }'
}

"$load" serve --listen 127.0.0.1:18071 >"$directory/upstream" &
started=$!
for workers in 1 2 16; do
    cat >"$directory/file.yaml" <<YAML
workers: $workers
admin: { listen: 127.0.0.1:15071 }
listeners: [{ name: egress, bind: 127.0.0.1:18072, protocol: http }]
upstreams: { web: { hosts: [web.test], endpoints: [127.0.0.1:18071], pool: { max_idle: 100 } } }
YAML
    for rate in 1 100 10000; do
        "$program" run --config "$directory/file.yaml" >"$directory/log" 2>&1 &
        proxy=$!
        started="$started $proxy"
        until curl -sf -o /dev/null http://127.0.0.1:15071/readyz; do sleep 0.1; done
        "$load" run --to 127.0.0.1:18072 --host web.test --size 256 --connections 64 \
            --rate $rate --seconds "$seconds" >"$directory/report" &
        running=$!
        most=0
        while kill -0 $running 2>/dev/null; do
            open=$(metric ambassador_pool_connections 'state="open"')
            [ "$open" -le "$most" ] || most=$open
            sleep 0.25
        done
        wait $running || cat "$directory/report" >&2
        requests=$(metric ambassador_requests_total 'upstream="web"')
        reused=$(metric ambassador_pool_reuse_total 'upstream="web"')
        awk -v w=$workers -v r=$rate -v n="$requests" -v u="$reused" -v m="$most" \
            'BEGIN { printf "| %d | %d | %.2f %% | %d | %d |\n", w, r, 100 * u / n, n - u, m }'
        kill $proxy
        wait $proxy || true
    done
done
