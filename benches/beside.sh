# What benchmarks of programs beside each other share; they read it with `source`. It
# makes a directory, `$work`, which is the current one then, and ends all that was started.

work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
cd "$work"

# Starts a program in the background.
start() { # NAME COMMAND...
    local name=$1
    shift
    "$@" >"$name.log" 2>&1 &
    pids+=($!)
    echo "$!" >"$name.pid"
}

# Waits until something listens on each port, ten seconds at most.
await() { # PORT...
    local port
    for port; do
        for _ in $(seq 100); do
            (: </dev/tcp/127.0.0.1/"$port") 2>/dev/null && break
            sleep 0.1
        done
    done
}

# Nanoseconds of CPU that a program has used.
used() { # NAME
    # A thread may end meanwhile.
    cat "/proc/$(cat "$1.pid")"/task/*/schedstat 2>/dev/null |
        awk '{ ns += $1 } END { printf "%.0f", ns }'
}
