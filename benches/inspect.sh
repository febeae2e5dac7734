#!/usr/bin/env bash
# Counts the instructions of a task without and with feature `inspect`, under callgrind, on one
# thread. Each task yields once. A program runs the work in two numbers of rounds, which are
# subtracted, so what runs once is not counted. Needs `valgrind`.
#
#     benches/inspect.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

crate=$PWD/target/inspect-cost
mkdir -p "$crate/src"
cat >"$crate/Cargo.toml" <<EOF
[package]
name = "inspect-cost"
edition = "2024"

[workspace]

[features]
inspect = ["errgroup/inspect"]

[dependencies]
errgroup = { path = "$PWD" }
tokio = { version = "1", features = ["rt", "time"] }

[profile.release]
codegen-units = 1
EOF
cp Cargo.lock "$crate"
cat >"$crate/src/main.rs" <<'EOF'
use errgroup::{Context, Group, fetch_all};
use tokio::task::yield_now;

async fn group(tasks: usize, limit: Option<usize>) {
    let g = Group::<String>::new();
    g.set_limit(limit);
    for _ in 0..tasks {
        g.go(async {
            yield_now().await;
            Ok(())
        });
    }
    g.wait().await.unwrap();
}

async fn items() {
    let values = fetch_all(&Context::background(), 64, 0..64, |_, item: usize| async move {
        yield_now().await;
        Ok::<_, String>(item)
    });
    assert_eq!(values.await.unwrap().len(), 64);
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let rounds: usize = arguments[2].parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        for _ in 0..rounds {
            match arguments[1].as_str() {
                "group" => group(8, None).await,
                "limited" => group(1_000, Some(64)).await,
                _ => items().await,
            }
        }
    });
}
EOF

# Prints the instructions of the program $1 with the work $2 in $3 rounds.
instructions() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$1" "$2" "$3" 2>&1 |
        sed -n 's/.*Collected : //p'
}

# Prints the instructions of one of the $4 tasks of the work $2.
per_task() {
    local once twice
    once=$(instructions "$1" "$2" "$3")
    twice=$(instructions "$1" "$2" $((2 * $3)))
    echo $(((twice - once) / ($3 * $4)))
}

for feature in none inspect; do
    features=()
    [[ $feature == none ]] || features=(--features "$feature")
    cargo build --quiet --release --manifest-path "$crate/Cargo.toml" \
        --target-dir "$crate/$feature" "${features[@]}"
done
printf '%-28s %8s %8s %6s\n' 'instructions of a task' without with ratio
while read -r work rounds tasks title; do
    without=$(per_task "$crate/none/release/inspect-cost" "$work" "$rounds" "$tasks")
    with=$(per_task "$crate/inspect/release/inspect-cost" "$work" "$rounds" "$tasks")
    ratio=$(awk "BEGIN { print $with / $without }")
    printf '%-28s %8d %8d %6.2f\n' "$title" "$without" "$with" "$ratio"
done <<'EOF'
group 200 8 a group of 8
limited 5 1000 1,000 tasks, 64 at once
items 40 64 fetch_all of 64 items
EOF
