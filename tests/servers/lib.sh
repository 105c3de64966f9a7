# What the scripts beside this one share: processes of a directory `$dir` that are started, waited
# for and stopped by name. NAME's log is `$dir/log/NAME.log`, its process id in `$dir/run/NAME.pid`.
# To be sourced by bash.

home=${ESKER_SERVERS_HOME:-$HOME/.cache/esker-servers}

# start NAME COMMAND...: in the background, in a session of its own, without our descriptors.
start() {
    local name=$1
    shift
    setsid "$@" </dev/null >>"$dir/log/$name.log" 2>&1 &
    echo $! >"$dir/run/$name.pid"
}

# is_running NAME: and is ours, for numbers of processes are used again.
is_running() {
    local pid
    pid=$(cat "$dir/run/$1.pid" 2>/dev/null) || return 1
    { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF "$dir"
}

# stop NAME [SIGNAL]: with its children; returns when it is gone; after 10 s it is killed.
stop() {
    local pid i
    is_running "$1" || { rm -f "$dir/run/$1.pid"; return 0; }
    pid=$(cat "$dir/run/$1.pid")
    kill "-${2:-TERM}" -- "-$pid" 2>/dev/null || true
    for i in $(seq 100); do
        is_running "$1" || break
        if ((i == 100)); then kill -KILL -- "-$pid" 2>/dev/null || true; fi
        sleep 0.1
    done
    rm -f "$dir/run/$1.pid"
}

# complain NAME MESSAGE: with the end of its log.
complain() {
    { echo "error: $1: $2"; echo "--- $dir/log/$1.log ends with"; tail -n 40 "$dir/log/$1.log"; } >&2
}

# await NAME SECONDS COMMAND...: until the command succeeds, or NAME has died, or it is too late.
await() {
    local name=$1 seconds=$2 began=$SECONDS
    shift 2
    until "$@" >>"$dir/log/$name.log" 2>&1; do
        # Twice, for in the middle of an exec a process has no command line.
        if ! is_running "$name" && sleep 0.5 && ! is_running "$name"; then complain "$name" "it ended"; return 1; fi
        if ((SECONDS - began > seconds)); then complain "$name" "no answer in $seconds s to: $*"; return 1; fi
        sleep 0.1
    done
}

# answers PORT: whether anything listens there.
answers() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# free_port PREFERRED: that one, or any other if somebody has it (another run of the tests, say).
free_port() {
    python3 - "$1" <<'PYTHON'
import socket, sys
for port in (int(sys.argv[1]), 0):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try: s.bind(("127.0.0.1", port))
        except OSError: continue
        print(s.getsockname()[1])
        break
PYTHON
}
