#!/usr/bin/env bash
# Cloaks with one process for each NVIDIA GPU of this machine. Needs what
# launch/local.sh needs, and the NVIDIA driver; installs once, then starts all.
#
#   bash launch/multi_gpu.sh cloak --input=photos --output=cloaked
#
# One process can use all GPUs too: FAWKES_JAX_EXTRAS=cuda bash
# launch/local.sh cloak ... is simpler, and right for a few GPUs. Processes of
# their own are right when reading and saving photos, which each process does
# in its own threads, cannot feed all GPUs, or when one GPU's failure should
# not end the others' work. Each does its share of the files; SIGTERM and
# SIGINT are passed on to all, and the exit code is the highest of theirs.
#
# FAWKES_JAX_GPUS: number of GPUs, where nvidia-smi does not say it or not all
#   are wanted. CUDA_VISIBLE_DEVICES: which ones, as everywhere.
# FAWKES_JAX: the command fawkes-jax, where it is installed already.
# FAWKES_JAX_EXTRAS, FAWKES_JAX_VENV, FAWKES_JAX_PYTHON: see launch/local.sh.
set -euo pipefail
set -m # Without it SIGINT would be ignored by what is started with &.

fail() {
  echo "launch/multi_gpu.sh: $1" >&2
  exit 2
}

if [[ "${1:-}" != cloak ]]; then
  fail "the first argument must be cloak, got '${1:-}'"
fi
visible=()
if [[ -n "${CUDA_VISIBLE_DEVICES:-}" ]]; then
  IFS=, read -ra visible <<<"$CUDA_VISIBLE_DEVICES"
elif [[ -z "${FAWKES_JAX_GPUS:-}" ]]; then
  command -v nvidia-smi >/dev/null ||
    fail "there is no nvidia-smi; FAWKES_JAX_GPUS must say how many GPUs"
fi
if [[ -n "${FAWKES_JAX_GPUS:-}" ]]; then
  count="$FAWKES_JAX_GPUS"
elif [[ ${#visible[@]} -gt 0 ]]; then
  count="${#visible[@]}"
else
  count="$(nvidia-smi --list-gpus | grep -c '^GPU')" ||
    fail "nvidia-smi lists no GPU"
fi
[[ "$count" =~ ^[1-9][0-9]*$ ]] ||
  fail "FAWKES_JAX_GPUS must be a number of GPUs, 1 or more, got '$count'"
if [[ ${#visible[@]} -gt 0 && "$count" -gt "${#visible[@]}" ]]; then
  fail "FAWKES_JAX_GPUS must be at most ${#visible[@]}, the number of GPUs of\
 CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES, got $count"
fi

program=("${FAWKES_JAX:-}")
if [[ -z "${FAWKES_JAX:-}" ]]; then
  program=(bash "$(dirname "${BASH_SOURCE[0]}")/local.sh")
  if [[ ",${FAWKES_JAX_EXTRAS:-}," != *,cuda,* ]]; then
    export FAWKES_JAX_EXTRAS="cuda${FAWKES_JAX_EXTRAS:+,$FAWKES_JAX_EXTRAS}"
  fi
fi
"${program[@]}" --version >/dev/null # Installs.

asked=
trap 'asked=TERM' TERM
trap 'asked=INT' INT
children=()
for ((i = 0; i < count; i++)); do
  # Only the first draws a progress bar.
  CUDA_VISIBLE_DEVICES="${visible[i]:-$i}" \
    TERM="$([[ $i -eq 0 ]] && echo "${TERM:-dumb}" || echo dumb)" \
    "${program[@]}" "$@" --num_processes="$count" --process_id="$i" \
    </dev/null &
  children+=($!)
done

pass_on() {
  asked="$1"
  kill -s "$1" "${children[@]}" 2>/dev/null || true
}
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT
if [[ -n "$asked" ]]; then
  pass_on "$asked"
fi

highest=0
for i in "${!children[@]}"; do
  while true; do
    asked=
    code=0
    wait "${children[i]}" || code=$?
    [[ -n "$asked" ]] || break # Else a signal, not the child, ended the wait.
  done
  if [[ $code -ne 0 ]]; then
    echo "launch/multi_gpu.sh: process $i ended with exit code $code" >&2
  fi
  highest=$((code > highest ? code : highest))
done
exit "$highest"
