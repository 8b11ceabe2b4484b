#!/bin/sh
# Installs the lock file, and then coolbits from the repository, into the environment of coolbits.yaml. Snakemake runs it
# there, in the folder in which it was started itself.
set -eu
if [ ! -f envs/coolbits.lock ]; then
    echo "$PWD: no envs/coolbits.lock; start Snakemake in the folder of the repository" >&2
    exit 2
fi
python -m pip install --no-input --disable-pip-version-check -r envs/coolbits.lock
python -m pip install --no-input --disable-pip-version-check --no-deps --editable .
