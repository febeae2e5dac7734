#!/usr/bin/env bash
# Runs the example query_databases against a PostgreSQL of its own, in a temporary directory and on
# a free port of loopback, which is removed afterwards.
#
# If PostgreSQL is not installed, the step is skipped. With ERRGROUP_INSTALL_POSTGRES=1, as in
# .ci/run and .github/workflows/ci.yml, it installs Debian's package instead, which takes root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scratch=$(mktemp -d)
data=''
bin=''
client=''

# PostgreSQL refuses to run as root.
as_server() (
    cd "$scratch"
    if [[ $EUID -eq 0 ]]; then runuser -u postgres -- "$@"; else "$@"; fi
)

clean_up() {
    [[ -z $client ]] || kill -KILL "$client" 2>/dev/null || true
    [[ -z $data ]] || as_server "$bin/pg_ctl" -D "$data" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$scratch"
}
trap clean_up EXIT

die() {
    printf 'postgres: %s\n' "$1" >&2
    exit 1
}

bounded() {
    if command -v timeout >/dev/null; then timeout 300 "$@"; else "$@"; fi
}

# Tries for ten seconds.
eventually() {
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        "$@" && return
        sleep 0.1
    done
    return 1
}

# The directories of initdb, newest first: Debian does not put it in the PATH.
find_bin() {
    local initdb
    initdb=$(command -v initdb ||
        compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -Vr | sed -n 1p) || true
    [[ -n $initdb ]] && bin=$(dirname "$(realpath "$initdb")")
}

install_postgres() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -qy --no-install-recommends postgresql-common
    # The package would otherwise create a cluster and start it.
    sed -i 's/^#* *create_main_cluster.*/create_main_cluster = false/' \
        /etc/postgresql-common/createcluster.conf
    apt-get install -qy --no-install-recommends postgresql
}

if ! find_bin; then
    if [[ ${ERRGROUP_INSTALL_POSTGRES-} != 1 ]]; then
        echo 'postgres: skipped: PostgreSQL is not installed (no initdb). Install it (on Debian:'
        echo 'apt-get install postgresql), or let this script do so: ERRGROUP_INSTALL_POSTGRES=1'
        exit 0
    fi
    if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
        die 'ERRGROUP_INSTALL_POSTGRES=1 needs root and apt-get'
    fi
    echo '-- installing postgresql'
    install_postgres >"$scratch/apt" 2>&1 || {
        cat "$scratch/apt" >&2
        die 'postgresql could not be installed'
    }
    find_bin || die 'postgresql is installed, and yet there is no initdb'
fi

# Starts a cluster, and sets `url`.
start() {
    local port tries
    export PGPASSWORD
    PGPASSWORD=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    printf '%s' "$PGPASSWORD" >"$scratch/password"
    [[ $EUID -ne 0 ]] || chown -R postgres "$scratch"
    as_server "$bin/initdb" -D "$scratch/data" -U postgres -A scram-sha-256 \
        --pwfile "$scratch/password" -E UTF8 --locale C --no-sync >"$scratch/log" 2>&1 || return 1
    data=$scratch/data
    # Only binding a port shows whether it is free.
    for ((tries = 0; tries < 10; tries++)); do
        port=$((20000 + RANDOM % 12000))
        as_server "$bin/pg_ctl" -D "$data" -l "$scratch/server" -t 60 -w \
            -o "-c listen_addresses=127.0.0.1 -c port=$port" \
            -o '-c unix_socket_directories= -c fsync=off' \
            start >/dev/null 2>&1 || continue
        url=postgres://postgres:$PGPASSWORD@127.0.0.1:$port/postgres
        asked=(-h 127.0.0.1 -p "$port" -U postgres -d postgres)
        return
    done
    return 1
}

# The processes of the server that belong to the example.
of_example="FROM pg_stat_activity WHERE application_name LIKE 'query\\_databases %'"

# counts NUMBER CONDITION: this many of the server's processes belong to the example and meet the
# condition.
counts() {
    local count
    count=$("$bin/psql" "${asked[@]}" -XAtc "SELECT count(*) $of_example AND $2")
    [[ $count -eq $1 ]]
}

# shows 'ARGUMENTS' PATTERN..: the example exits with status 0, and its output matches each pattern.
shows() {
    local arguments=$1 pattern
    shift
    echo "-- query_databases --postgres URL $arguments"
    # shellcheck disable=SC2086 # the arguments are words
    bounded "$query_databases" --postgres "$url" $arguments >"$scratch/out" ||
        die "query_databases $arguments: status $?"
    cat "$scratch/out"
    for pattern in "$@"; do
        grep -Eq -- "$pattern" "$scratch/out" ||
            die "query_databases $arguments: did not print: $pattern"
    done
    eventually counts 0 true || die "query_databases $arguments: a query is left in the server"
}

query_databases=$(cargo build --workspace --exclude distributed --exclude jobs \
    --all-features --example query_databases --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[[ -x $query_databases ]] || die 'query_databases was not built'

start || {
    cat "$scratch/log" "$scratch/server" >&2 || true
    die 'the server does not start'
}
echo "-- $("$bin/postgres" --version)"

shows '' '^PostgreSQL: 3 queries run, and rows arrive; the client disconnects$' \
    'rows .* after [1-9][0-9]* rows: context cancelled: client disconnected$' \
    '^  0 queries are left; 3 of 3 ' \
    '^[1-9][0-9]* of 200 queries were stopped about when they ended, and no other query; so were'
shows '--leave 60000 --deadline 200' 'count .* context deadline exceeded: the page is due$' \
    '^  0 queries are left; 3 of 3 '
# For comparison: without the bridge.
shows '--drop' '^  3 queries are left; 0 of 3 '

echo '-- query_databases, SIGKILL'
"$query_databases" --postgres "$url" --leave 60000 --deadline 5000 >/dev/null &
client=$!
eventually counts 3 "state = 'active' AND pid <> pg_backend_pid()" ||
    die 'the three queries do not run'
kill -KILL "$client"
wait "$client" 2>/dev/null || true
client=''
left=$("$bin/psql" "${asked[@]}" -XAtc "SELECT count(*) $of_example")
echo "killed; $left of its queries are left in the server"
eventually counts 0 true || die 'the queries of a client that was killed run on past their deadline'
echo 'at the deadline, none'
