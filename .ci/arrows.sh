#!/usr/bin/env bash
# Prints which folder of src/ uses which, and fails if one uses another in the wrong direction. A
# folder may use those before it in this list.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

order='sync panic tracing registry span context scheduler inspect group fan_out tower'

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
            printf "arrows: %s uses %s, which .ci/arrows.sh does not know\n", $2, $3
            wrong = 1
        } else if (rank[$3] > rank[$2]) {
            printf "arrows: %s uses %s: this points the wrong way\n", $2, $3
            wrong = 1
        } else {
            uses[$2] = uses[$2] " " $3
        }
    }
    END {
        for (at = count; at > 0; at--)
            if (names[at] in uses) printf "%-10s->%s\n", names[at], uses[names[at]]
        exit wrong
    }
'

# Fails if two files import each other, directly or through others. A file and those in its folder
# (`name.rs` and `name/`) may. Prints "FROM TO" for each `use` of a path in the crate.
imports() {
    find src -name '*.rs' | sort | xargs awk '
        # The paths of a use, one per name in its braces.
        function paths(use, prefix,    at, depth, part, char, start) {
            at = index(use, "{")
            if (!at) { arrow(prefix use); return }
            prefix = prefix substr(use, 1, at - 1)
            use = substr(use, at + 1, length(use) - at - 1)
            start = 1
            for (at = 1; at <= length(use) + 1; at++) {
                char = substr(use, at, 1)
                if (char == "{") depth++
                if (char == "}") depth--
                if ((char == "," && !depth) || char == "") {
                    part = substr(use, start, at - start)
                    if (part != "") paths(part, prefix)
                    start = at + 1
                }
            }
        }
        function arrow(path) {
            sub(/ as .*/, "", path)
            if (path ~ /^crate::/) sub(/^crate::/, "", path)
            else if (path ~ /^self::/) { sub(/^self::/, "", path); path = module "::" path }
            else {
                base = module
                while (path ~ /^super::/) {
                    sub(/^super::/, "", path)
                    if (!sub(/::[a-z_]+$/, "", base)) base = ""
                }
                path = base == "" ? path : base "::" path
            }
            print module, path
        }
        FNR == 1 {
            module = FILENAME
            sub(/^src\//, "", module); sub(/\.rs$/, "", module); gsub(/\//, "::", module)
            use = ""
        }
        use == "" && /^ *(pub(\([a-z]+\))? )?use (crate|super|self)::/ {
            use = " "
            sub(/^ *(pub(\([a-z]+\))? )?use /, "")
        }
        use != "" {
            use = use $0
            if (/;/) { gsub(/ as /, "@"); gsub(/[ \t;]/, "", use); paths(use, ""); use = "" }
        }
    '
}

modules=$(find src -name '*.rs' | sed -e 's|^src/||' -e 's|\.rs$||' -e 's|/|::|g' | sort)
loops=$(imports | awk -v modules="$modules" '
    BEGIN {
        count = split(modules, names, "\n")
        for (at = 1; at <= count; at++) is_module[names[at]] = 1
    }
    {
        while ($2 != "" && !($2 in is_module)) if (!sub(/::[A-Za-z_*]+$/, "", $2)) $2 = ""
        is_own = index($1 "::", $2 "::") == 1 || index($2 "::", $1 "::") == 1
        if ($2 != "" && !is_own) print $1, $2
    }' | sort -u | tsort 2>&1 >/dev/null || true)
if [[ -n $loops ]]; then
    printf 'arrows: these files import each other:\n%s\n' "$loops" >&2
    exit 1
fi
echo "no two files import each other"
