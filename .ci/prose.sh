#!/usr/bin/env bash
# Checks the text of the whole tree: lines of at most 100 columns, words that the project does not
# use, and subjects of commits of at most 72 characters.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Columns are characters, not bytes.
export LC_ALL=C.UTF-8

failed=0

# Prints the lines that it reads below a heading. Any line is a failure.
report() {
    local found
    found=$(cat)
    [[ -n $found ]] || return 0
    printf 'prose: %s\n%s\n' "$1" "$found" >&2
    failed=1
}

# Without git, as in a published package, every file counts.
if git rev-parse HEAD >/dev/null 2>&1; then
    list=(git ls-files)
else
    list=(find . -path ./target -prune -o -type f -print)
fi
mapfile -t files < <("${list[@]}" | sed 's|^\./||' |
    grep -E '\.(rs|md|toml|sh|yml|proto)$|(^|/)\.ci/run$' | sort)

# Exceptions: a line with an address, which cannot be broken, and a row of a Markdown table.
# Generated files (Cargo.lock, .ci/public-api.txt) are not among the files.
report 'lines over 100 columns' < <(
    grep -nE '^.{101,}' "${files[@]}" |
        grep -vE '^[^:]*:[0-9]+:.*https?://|^[^:]*\.md:[0-9]+: *\|' |
        cut -c 1-140
)

# Words that are not used, as extended regular expressions, and what to write instead: the words of
# CONTRIBUTING.md, no persons for things, no pictures, no riddles.
words=(
    'whoever|whomever|the one who' 'name the thing: the waker, the task, the caller'
    'somebody|someone' '"a task", "a client", or the passive'
    'nobody|no one' '"no task", "no client", or the passive'
    'everybody|everyone' '"all tasks", "all clients"'
    'anybody|anyone' '"any task", "any client"'
    'tickets?' 'permit'
    'scouts?' 'searching worker'
    'tethers?|tethered' 'connection, link'
    'hangs? back|hung back' 'back-off'
    'displaced|yonder|thereof|therein' 'say what happens, and where'
    '(is|are|was|were) told' 'is notified, sees, receives'
    '(is|are|has|have) gone' 'disconnected, has ended, was dropped'
    'so many' 'this many, or the number'
)
for ((at = 0; at < ${#words[@]}; at += 2)); do
    report "not used: ${words[at]}; instead: ${words[at + 1]}" < <(
        grep -nwiE "${words[at]}" "${files[@]}" | grep -v '^\.ci/prose\.sh:' | cut -c 1-140
    )
done

# The rule begins with the commit that added this script. A shallow clone has no history to check.
if [[ $(git rev-parse --is-shallow-repository 2>/dev/null) == false ]]; then
    added=$(git log --diff-filter=A --format=%H -- .ci/prose.sh | tail -n 1)
    report 'subjects of commits over 72 characters' < <(
        git log --format='%h %s' "${added:-HEAD}..HEAD" | grep -E '^[0-9a-f]+ .{73,}'
    )
else
    echo 'prose: no history, so the subjects of commits were not checked'
fi

((failed == 0)) || exit 1
echo "prose: ${#files[@]} files"
