#!/usr/bin/env bash
# Real clients against servers with the layer: curl, h2load, Chromium, and raw sockets.
# Where a program is missing, and this may do so, it installs Debian's package.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing=()
command -v curl >/dev/null || missing+=(curl)
command -v h2load >/dev/null || missing+=(nghttp2-client)
command -v chromium >/dev/null || missing+=(chromium)
if ((${#missing[@]})); then
    if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
        printf 'clients: install these, or run this as root on Debian: %s\n' "${missing[*]}" >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# One test at a time: the memory is that of the whole process.
cargo test --quiet --workspace --exclude distributed --exclude jobs --all-features \
    --test clients -- --include-ignored --test-threads 1

scratch=$(mktemp -d)
server=''
trap '[[ -z $server ]] || kill -KILL "$server" 2>/dev/null || true; rm -rf "$scratch"' EXIT

die() {
    printf 'clients: %s\n' "$1" >&2
    cat "$scratch/log" >&2
    exit 1
}

# start EXAMPLE ARGUMENTS..: builds it and starts it.
start() {
    local program
    program=$(cargo build --quiet --workspace --exclude distributed --exclude jobs \
        --all-features --example "$1" --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    "$program" "${@:2}" >"$scratch/out" 2>"$scratch/log" &
    server=$!
}

# serve EXAMPLE ARGUMENTS..: starts it, and waits until it prints its address.
serve() {
    : >"$scratch/out"
    start "$@"
    for ((tries = 0; tries < 600; tries++)); do
        address=$(sed -n 's/^listening on \([0-9.:]*\).*/\1/p' "$scratch/out")
        [[ -z $address ]] || return 0
        kill -0 "$server" 2>/dev/null || die "$1 has ended"
        sleep 0.1
    done
    die "$1 does not listen"
}

ask() {
    curl --noproxy '*' --silent --show-error "$@" "http://$address/"
}

# lines TEXT: how many lines of the server's log have it.
lines() {
    grep -c "$1" "$scratch/log" || true
}

echo '-- request_cancelled: the handler sees each of 100 clients that give up'
# The port is in the text of the example. If another program has it, wait for a minute.
address=127.0.0.1:8000
is_up=''
for ((tries = 0; tries < 60; tries++)); do
    start request_cancelled
    # The response may be that of another program, but the line in the log is not.
    ask --retry 50 --retry-delay 1 --retry-connrefused >/dev/null 2>&1 || true
    if (($(lines '^processing the request') == 1)); then
        is_up=1
        break
    fi
    kill -KILL "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    sleep 1
done
[[ -n $is_up ]] || die 'request_cancelled does not answer'
# A client that gives up before its request is read has no handler, so another one is started.
for ((batch = 0; batch < 100; batch++)); do
    begun=$(($(lines '^processing the request') - 1))
    ((begun < 100)) || break
    protocol=--http1.1
    ((batch % 2)) || protocol=--http2-prior-knowledge
    clients=()
    for ((client = 0; client < 10; client++)); do
        # The handler needs two seconds. The rest of them is for a busy machine.
        ask "$protocol" --max-time 0.5 >/dev/null 2>&1 &
        clients+=($!)
    done
    wait "${clients[@]}" || true
done
for ((tries = 0; tries < 100; tries++)); do
    begun=$(($(lines '^processing the request') - 1))
    seen=$(lines '^request stopped: .*: client disconnected$')
    ((seen < begun)) || break
    sleep 0.1
done
((begun >= 100 && seen == begun)) ||
    die "request_cancelled: of $begun clients, the handler saw $seen give up"
kill -TERM "$server"
wait "$server" || true

echo '-- inspect: the page shows the task that does not stop'
serve inspect --port 0 --debug-pages
curl --noproxy '*' --silent --request POST "http://$address/stop" >/dev/null
sleep 1
# opened ADDRESS: the elements of the page when its script has run.
opened() {
    chromium --headless --no-sandbox --disable-gpu --user-data-dir="$scratch/chromium" \
        --window-size=1000,700 --dump-dom "$1" 2>/dev/null
}
# shown TEXT: the lines that the page shows when it is opened with a search for the text.
shown() {
    opened "http://$address/debug/tasks.html#$1" |
        sed -e 's/<div class="leaf/\n&/g; s/<summary/\n&/g; s/<li/\n&/g' |
        grep -E '^<(div class="leaf"|summary|li)' || true
}
grep -q '<li>.*deaf.*still running.*POST /stop' <<<"$(shown '')" ||
    die 'inspect: the page does not show the task that does not stop'
leaves() {
    shown "$1" | grep -c '^<div class="leaf"' || true
}
[[ $(leaves '') == 3 && $(leaves deaf) == 1 && $(leaves nothing) == 0 ]] ||
    die 'inspect: the search does not show the task that it is for, and no other one'

# The same page with a script that folds and unfolds. It leaves how many leaves are visible: at
# first, when all is folded, when all is unfolded, and when the group of the first one is folded.
curl --noproxy '*' --silent "http://$address/debug/tasks.html" >"$scratch/tasks.html"
cat >>"$scratch/tasks.html" <<'VISITOR'
<script>
{
  const seen = [];
  const leaves = [...document.querySelectorAll(".leaf")];
  const see = () => seen.push(leaves.filter(it => it.checkVisibility()).length);
  see();
  document.getElementById("fold").click();
  see();
  document.getElementById("open").click();
  see();
  leaves[0].closest("details").querySelector("summary").click();
  see();
  document.body.append("SEEN " + seen.join(" ") + " END");
}
</script>
VISITOR
read -r _ first folded unfolded partly _ < <(
    opened "file://$scratch/tasks.html" | grep -oE 'SEEN [0-9 ]*END' | tail -n 1
)
[[ $first == 3 && $folded == 0 && $unfolded == 3 ]] && ((partly < 3)) ||
    die "inspect: no folding: $first, $folded, $unfolded and $partly leaves are visible"

echo '-- inspect: the timeline has a row for each task, and can be zoomed and moved'
curl --noproxy '*' --silent "http://$address/work" >/dev/null
curl --noproxy '*' --silent "http://$address/debug/timeline.json" |
    grep -q '"traceEvents":\[.*"outcome":"running"' || die 'inspect: no trace'
# rows TEXT: the rows of tasks that the timeline shows when it is opened with a search for the text.
rows() {
    opened "http://$address/debug/timeline.html#$1" | grep -oE '<div class="row task"[^>]*>' || true
}
count() {
    rows "$1" | wc -l
}
[[ $(count deaf) == 1 && $(count users) == 0 && $(count 'job 2') == 1 && $(count nothing) == 0 ]] ||
    die 'inspect: the timeline does not show the task that is searched for, and no other one'
grep -q 'data-outcome="running"' <<<"$(rows deaf)" || die 'inspect: the deaf task does not run'
grep -q 'data-outcome="aborted"' <<<"$(rows 'job 2')" || die 'inspect: job 2 was not aborted'
# The same page with a script that uses its buttons, the wheel and the pointer. Each step leaves
# the range that is in view, in milliseconds, and the last one what the tip says.
curl --noproxy '*' --silent "http://$address/debug/timeline.html" >"$scratch/timeline.html"
cat >>"$scratch/timeline.html" <<'VISITOR'
<script>
const seen = [];
const see = () => {
  const { from, to } = document.getElementById("range").dataset;
  seen.push(Math.round(from / 1000) + "-" + Math.round(to / 1000));
};
const track = () => {
  const rows = [...document.querySelectorAll(".row.task")];
  return rows.find(it => it.textContent.includes("deaf")).querySelector(".track");
};
const box = track().getBoundingClientRect();
const at = {
  clientX: box.left + box.width / 4, clientY: box.top + 9, pointerId: 1,
  bubbles: true, cancelable: true,
};
see();
document.getElementById("in").click();
see();
document.getElementById("axis").dispatchEvent(new WheelEvent("wheel", { ...at, deltaY: -100 }));
see();
track().dispatchEvent(new PointerEvent("pointerdown", at));
dispatchEvent(new PointerEvent("pointermove", { ...at, clientX: at.clientX + 100 }));
dispatchEvent(new PointerEvent("pointerup", at));
see();
document.getElementById("all").click();
see();
track().dispatchEvent(new MouseEvent("mousemove", at));
const said = document.getElementById("tip").textContent.replaceAll("\n", "; ");
document.body.append("SEEN " + seen.join(" ") + " TIP " + said + " END");
</script>
VISITOR
seen=$(opened "file://$scratch/timeline.html" | grep -oE 'SEEN .* END' | tail -n 1)
read -r _ whole in wheel dragged all _ tip <<<"$seen"
# is_inside A B: the range A is a part of B.
is_inside() {
    ((${1%-*} >= ${2%-*} && ${1#*-} <= ${2#*-} && ${1#*-} - ${1%-*} < ${2#*-} - ${2%-*}))
}
is_inside "$in" "$whole" && is_inside "$wheel" "$in" || die "inspect: no zoom: $seen"
((${dragged%-*} < ${wheel%-*} && ${dragged#*-} < ${wheel#*-})) || die "inspect: no drag: $seen"
[[ $all == "$whole" ]] || die "inspect: the whole is not shown again: $seen"
[[ $tip == *'deaf; task #'*'started at'*'running'*'group cancelled at'*'POST /stop'* ]] ||
    die "inspect: the tip does not tell of the task: $seen"
kill -TERM "$server"
wait "$server" || die "inspect: ended with status $?"
server=''

echo '-- axum_service, SIGTERM during a request'
serve axum_service 127.0.0.1:0
ask --verbose >"$scratch/body" 2>"$scratch/asked" &
client=$!
for ((tries = 0; tries < 600; tries++)); do
    ! grep -q '^> GET' "$scratch/asked" || break
    sleep 0.1
done
sleep 1
kill -TERM "$server"
wait "$client" || die 'axum_service: the request in flight failed'
[[ $(cat "$scratch/body") == hello ]] || die 'axum_service: not the whole response'
wait "$server" || die "axum_service: ended with status $?"
server=''
[[ ! -s $scratch/log ]] || die 'axum_service: printed an error'
