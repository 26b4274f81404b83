#!/bin/sh
# demo.sh DEMO: runs the demo; it must end well, and context must beat no context in both figures on the held-out weeks.
set -eu
out=$(sh "$1")
printf '%s\n' "$out"
printf '%s\n' "$out" | awk '
    $1 == "without" && $2 == "context" && NF == 5 { hit = $3; recall = $4 }
    $1 == "with" && $2 == "context" && NF == 5 { good = $3 > hit && $4 > recall && $3 > 0.75 }
    END { exit !good }'
