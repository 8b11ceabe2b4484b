#!/usr/bin/env bash
# Makes in the folder $1 (default .venv) the environment of the lock file $2, by default that of coolbits, and then with
# coolbits in it. Uses uv, which is ten times faster than pip.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
lock=${2:-envs/coolbits.lock}
echo "making $venv from $lock ($(grep -c == "$lock") packages, a minute or so)"
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' ||
    { echo "coolbits needs Python 3.11 or 3.12; set PYTHON=/path/to/python3.11" >&2; exit 2; }
"$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv>=0.9"
# uv does not read pip's settings: hand over where pip is told to look for wheels and certificates.
find_links=$("$venv/bin/python" -m pip config get global.find-links 2>/dev/null || true)
[ -z "${find_links}${PIP_FIND_LINKS:-}" ] || export UV_FIND_LINKS="${find_links:-$PIP_FIND_LINKS}"
certificates=$("$venv/bin/python" -m pip config get global.cert 2>/dev/null || true)
[ -z "${certificates}${PIP_CERT:-}" ] || export SSL_CERT_FILE="${certificates:-$PIP_CERT}"
export UV_LINK_MODE=${UV_LINK_MODE:-copy}
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" -r "$lock"
[ "$lock" != envs/coolbits.lock ] || "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --editable .
