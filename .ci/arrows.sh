#!/usr/bin/env bash
# Which folder of src/ uses which: prints each arrow, and fails if one points the wrong way. A folder
# may use those before it in this list.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

order='sync panic tracing context scheduler group fan_out tower'

# "FROM TO" for each path that begins with `crate::` or `$crate::`, in code and not in comments.
arrows() {
    local file folder
    while read -r file; do
        folder=${file#src/}
        folder=${folder%%/*}
        folder=${folder%.rs}
        [[ $folder != lib ]] || continue
        sed -e 's|//.*||' "$file" |
            grep -oE 'crate::[a-z_]+' |
            sed -e "s/crate::/$folder /" || true
    done < <(find src -name '*.rs' | sort)
}

arrows | sort | uniq -c | awk -v order="$order" '
    BEGIN {
        count = split(order, names, " ")
        for (at = 1; at <= count; at++) rank[names[at]] = at
    }
    # A function of the crate root, or a path within the folder.
    $2 == $3 { next }
    {
        if (!($2 in rank) || !($3 in rank)) {
            printf "arrows: %s uses %s, and .ci/arrows.sh does not know where that belongs\n", $2, $3
            wrong = 1
        } else if (rank[$3] > rank[$2]) {
            printf "arrows: %s uses %s: this points the wrong way\n", $2, $3
            wrong = 1
        } else {
            uses[$2] = uses[$2] " " $3
        }
    }
    END {
        for (at = count; at > 0; at--) if (names[at] in uses) printf "%-10s->%s\n", names[at], uses[names[at]]
        exit wrong
    }
'
