#!/usr/bin/env bash
# Runs the study file $1, then writes the report unless it is newer than everything it shows.
set -euo pipefail
study=$1
plan=$(coolbits plan "$study" --json)
name=$(python -c 'import json, sys; print(json.load(sys.stdin)["study"])' <<<"$plan")
report=results/report.html
[ "$study" = config.yaml ] || report=results/report-$name.html
snakemake --cores all --configfile "$study"
shown=("results/table/$name" "results/figure/$name" "results/claims/$name" "results/lineage/$name" "results/settings/$name.html")
fresh=$(find "${shown[@]}" \( -name manifest.json -o -name '*.html' \) -newer "$report" 2>/dev/null || true)
if [ -e "$report" ] && [ -z "$fresh" ]; then
    echo "$report is up to date"
else
    # Snakemake writes in place: half a report would be newer than everything it shows.
    partial=results/.report-$name.$$.html
    trap 'rm -f "$partial"' EXIT
    snakemake --configfile "$study" --report "$partial"
    mv "$partial" "$report"
fi
