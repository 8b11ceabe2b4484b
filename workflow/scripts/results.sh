#!/usr/bin/env bash
# Runs the study file $1, then writes the report unless it is newer than everything it shows.
set -euo pipefail
study=$1
name=$(python -c 'import sys; from pathlib import Path; from coolbits.study.load import load_study; print(load_study(Path(sys.argv[1])).study)' "$study")
report=results/report.html
[ "$study" = config.yaml ] || report=results/report-$name.html
snakemake --cores all --configfile "$study"
fresh=$(find "results/table/$name" "results/figure/$name" "results/claims/$name" -name manifest.json -newer "$report" 2>/dev/null || true)
if [ -e "$report" ] && [ -z "$fresh" ]; then
    echo "$report is up to date"
else
    snakemake --configfile "$study" --report "$report"
fi
