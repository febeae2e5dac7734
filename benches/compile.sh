#!/usr/bin/env bash
# Compares how long the compiler takes for a call, and how much code it makes of it. A program with
# 200 calls, each with a future of its own, is compiled for each kind of call. The processor time is
# that of the program alone: its dependencies are compiled before.
#
#     benches/compile.sh            debug builds
#     benches/compile.sh --release  release builds
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

crate=$PWD/target/compile
mkdir -p "$crate/src/bin"
cat >"$crate/Cargo.toml" <<EOF
[package]
name = "compile"
edition = "2024"

[workspace]

[dependencies]
errgroup = { path = "$PWD" }
tokio = { version = "1", features = ["macros", "rt-multi-thread", "time"] }

[profile.dev]
debug = 0
EOF
echo >"$crate/src/lib.rs"

# The future of call number $1, whose value is $2.
future() {
    printf 'async move { tokio::task::yield_now().await; '
    printf 'if x > %d { Err(x.to_string()) } else { Ok(%s) } }' "$1" "$2"
}

# Writes the program $1, in which $2 makes what the calls are made on, of type $3; a call is $4, a
# future whose value is $5, and $6; and $7 waits at the end.
program() {
    {
        for ((n = 0; n < 200; n++)); do
            printf 'async fn call_%d(g: &mut %s, x: u64) { %s%s%s; }\n' \
                "$n" "$3" "$4" "$(future "$n" "$5")" "$6"
        done
        printf '#[tokio::main]\nasync fn main() {\n    let mut g = %s;\n' "$2"
        for ((n = 0; n < 200; n++)); do printf '    call_%d(&mut g, 1).await;\n' "$n"; done
        printf '    %s\n}\n' "$7"
    } >"$crate/src/bin/$1.rs"
}

group='errgroup::Group::<String>::new() errgroup::Group<String>'
wait='g.wait().await.unwrap();'
program join_set 'tokio::task::JoinSet::new()' 'tokio::task::JoinSet<Result<(), String>>' \
    'g.spawn(' '()' ')' 'while let Some(ended) = g.join_next().await { ended.unwrap().unwrap(); }'
program go $group 'g.go(' '()' ')' "$wait"
program spawn $group 'let _ = g.spawn(' 'x' ').await' "$wait"
program task_go $group 'g.task().go(' '()' ')' "$wait"
program fetch_all 'errgroup::Context::background()' 'errgroup::Context' \
    'let _ = errgroup::fetch_all(g, 8, 0..x, |_, x| ' 'x' ').await' ''

# Processor time and size, not distorted by what was compiled before.
export CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=$crate/target
profile=debug
[[ ${1-} != --release ]] || profile=release
build() {
    cargo build --quiet --manifest-path "$crate/Cargo.toml" "$@"
}
build --lib ${1+"$1"}
for name in join_set go spawn task_go fetch_all; do
    # Once for the dependencies and once for the time.
    for _ in 1 2; do
        touch "$crate/src/bin/$name.rs"
        seconds=$({ TIMEFORMAT=%U; time build --bin "$name" ${1+"$1"}; } 2>&1)
    done
    text=$(size -A "$CARGO_TARGET_DIR/$profile/$name" | awk '$1 == ".text" { print $2 }')
    [[ $name != join_set ]] || { base_seconds=$seconds base_text=$text; }
    values=(-v name="$name" -v s="$seconds" -v t="$text" -v bs="$base_seconds" -v bt="$base_text")
    awk "${values[@]}" 'BEGIN {
        printf "%-10s %6.1f s  %5.2f of a JoinSet; ", name, s, s / bs
        printf "%7d KiB  %5.2f\n", t / 1024, t / bt
    }'
done
