#!/usr/bin/env bash
# Compares a task without and with feature `inspect`, without a recorder. A copy of the crate under
# another name has no feature, so that both are in one process. Each task yields once.
#
#     benches/inspect.sh                times on two workers: medians of rounds in turn
#     benches/inspect.sh --instructions on one thread, by callgrind; needs `valgrind`
#
# Callgrind runs the work in two numbers of rounds, which are subtracted, so what runs once is not
# counted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

crate=$PWD/target/inspect-cost
mkdir -p "$crate/src"
rm -rf "$crate/without"
mkdir "$crate/without"
cp -r src README.md docs "$crate/without"
# Without what is not a part of the library: its manifest names files that are not in the copy.
sed -e '0,/^\[package\]/{/^\[package\]/!d}' -e '/^# Each of these is compiled before/,$d' \
    -e 's/^name = "errgroup"/name = "errgroup-without"/' Cargo.toml >"$crate/without/Cargo.toml"
printf '[lints.rust]\nunexpected_cfgs = "allow"\n' >>"$crate/without/Cargo.toml"
cat >"$crate/Cargo.toml" <<EOF
[package]
name = "inspect-cost"
edition = "2024"

[workspace]

[dependencies]
with = { package = "errgroup", path = "$PWD", features = ["inspect"] }
without = { package = "errgroup-without", path = "without" }
tokio = { version = "1", features = ["rt-multi-thread", "time"] }

[profile.release]
codegen-units = 1
EOF
cp Cargo.lock "$crate"
cat >"$crate/src/main.rs" <<'EOF'
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

macro_rules! version {
    ($errgroup:ident) => {
        pub mod $errgroup {
            use $errgroup::{Context, Group, fetch_all};
            use tokio::task::yield_now;

            pub async fn group(tasks: usize, limit: Option<usize>) {
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

            pub async fn items(items: usize) {
                let ctx = Context::background();
                let values = fetch_all(&ctx, 64, 0..items, |_, item: usize| async move {
                    yield_now().await;
                    Ok::<_, String>(item)
                });
                assert_eq!(values.await.unwrap().len(), items);
            }

            pub async fn run(work: &str, rounds: usize) {
                for _ in 0..rounds {
                    match work {
                        "group-8" => group(8, None).await,
                        "unlimited" => group(1_000, None).await,
                        "limited" => group(1_000, Some(64)).await,
                        "items-64" => items(64).await,
                        _ => unreachable!("{work}"),
                    }
                }
            }
        }
    };
}

mod versions {
    version!(with);
    version!(without);
}

async fn run(version: &str, work: &str, rounds: usize) {
    match version {
        "with" => versions::with::run(work, rounds).await,
        _ => versions::without::run(work, rounds).await,
    }
}

/// Returns the median times of a version and of the other one, in turn.
fn medians(runtime: &Runtime, work: &'static str, rounds: usize) -> [Duration; 2] {
    let mut times = [const { Vec::new() }; 2];
    for turn in 0..600 {
        // Each is as often the first one.
        for side in if turn % 2 == 0 { [0, 1] } else { [1, 0] } {
            let start = Instant::now();
            let ran = runtime.spawn(run(["without", "with"][side], work, rounds));
            runtime.block_on(ran).unwrap();
            times[side].push(start.elapsed());
        }
        // Lets each round begin on an idle runtime.
        runtime.block_on(yield_now());
    }
    times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let work: &'static str = arguments[1].clone().leak();
    let rounds: usize = arguments[2].parse().unwrap();
    if let Some(version) = arguments.get(3) {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        return runtime.block_on(run(version, work, rounds));
    }
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let [without, with] = medians(&runtime, work, rounds);
    println!("{} {}", without.as_nanos(), with.as_nanos());
}
EOF

# Prints the instructions of one of the $3 tasks of the work $1 in $2 rounds, in the version $4.
instructions() {
    local once twice
    once=$(collected "$1" "$2" "$4")
    twice=$(collected "$1" $((2 * $2)) "$4")
    echo $(((twice - once) / ($2 * $3)))
}

# Prints the instructions of the program with the arguments.
collected() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$@" 2>&1 |
        sed -n 's/.*Collected : //p'
}

program=$crate/target/release/inspect-cost
cargo build --quiet --release --manifest-path "$crate/Cargo.toml" --target-dir "$crate/target"
unit='nanoseconds of a task'
[[ ${1:-} != --instructions ]] || unit='instructions of a task'
printf '%-28s %8s %8s %6s\n' "$unit" without with ratio
while read -r work rounds tasks title; do
    if [[ ${1:-} == --instructions ]]; then
        without=$(instructions "$work" "$rounds" "$tasks" without)
        with=$(instructions "$work" "$rounds" "$tasks" with)
    else
        read -r without with < <("$program" "$work" "$rounds")
        without=$((without / (rounds * tasks)))
        with=$((with / (rounds * tasks)))
    fi
    ratio=$(awk "BEGIN { print $with / $without }")
    printf '%-28s %8d %8d %6.2f\n' "$title" "$without" "$with" "$ratio"
done <<'EOF'
group-8 200 8 a group of 8
unlimited 5 1000 1,000 tasks
limited 5 1000 1,000 tasks, 64 at once
items-64 40 64 fetch_all of 64 items
EOF
