#!/usr/bin/env bash
# Runs fawkes-jax, or its tests, on this machine. All that is needed before is
# Python 3.11 or newer; the first run makes a virtual environment beside the
# checkout (.venv) and installs the package and what it depends on.
#
#   bash launch/local.sh cloak --input=photos --output=cloaked
#   bash launch/local.sh test [arguments of pytest]
#
# FAWKES_JAX_PYTHON: which Python makes the environment, where the newest
#   python3.x on the PATH is not wanted.
# FAWKES_JAX_VENV: where the environment is, if not in .venv.
# FAWKES_JAX_EXTRAS: extras to install, such as cuda, tpu or heic.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${FAWKES_JAX_VENV:-$root/.venv}"
extras="${FAWKES_JAX_EXTRAS:-}"

find_python() {
  local candidate
  for candidate in ${FAWKES_JAX_PYTHON:-python3.13 python3.12 python3.11 \
    python3 python}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
      2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "launch/local.sh: Python 3.11 or newer must be installed" >&2
  exit 2
}

install() {
  # $1: the extras; installed again when they, or the dependencies, change.
  local stamp="$venv/.fawkes_jax_installed" wanted
  wanted="$1 $(cksum <"$root/pyproject.toml")"
  if [[ -f "$stamp" && "$(cat "$stamp")" == "$wanted" ]]; then
    return
  fi
  if [[ ! -x "$venv/bin/python" ]]; then
    echo "launch/local.sh: making $venv" >&2
    "$(find_python)" -m venv "$venv"
  fi
  echo "launch/local.sh: installing, this takes a minute or two" >&2
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --editable "$root${1:+[$1]}" >&2
  echo "$wanted" >"$stamp"
}

if [[ $# -eq 0 ]]; then
  set -- --help
fi
if [[ "$1" == test ]]; then
  shift
  install "test${extras:+,$extras}"
  cd "$root"
  exec "$venv/bin/python" -m pytest "$@"
fi
install "$extras"
exec "$venv/bin/fawkes-jax" "$@"
