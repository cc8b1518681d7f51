#!/usr/bin/env bash
# Cloaks an archive on a Cloud TPU slice, one host or many. Needs gcloud, logged
# in, a project with TPU quota, and photos in a bucket that the TPU's service
# account can read and write. Set the variables below, then:
#
#   bash launch/tpu_vm.sh create       queues a request for the slice
#   bash launch/tpu_vm.sh status       how far the request is
#   bash launch/tpu_vm.sh install      brings this checkout to all hosts
#   bash launch/tpu_vm.sh run --input=gs://... --output=gs://...
#   bash launch/tpu_vm.sh status       the last lines that each host wrote
#   bash launch/tpu_vm.sh stop         ends the run in order (SIGTERM)
#   bash launch/tpu_vm.sh delete       the slice and the request
#
# run starts fawkes-jax cloak --distributed on all hosts at once and returns;
# they go on when this machine is switched off. The same run continues after
# stop, after a failure, and on another slice after this one was taken away.
# Where a slice has several hosts, gcloud wants its key in an agent: ssh-add
# ~/.ssh/google_compute_engine. Further arguments of create and delete are
# gcloud's. TPU7x and newer have no such hosts: see launch/gke_jobset_tpu.yaml.
#
# PROJECT, ZONE: of Google Cloud. NAME: of the slice, your choice.
# For create: ACCELERATOR_TYPE, such as v6e-16, RUNTIME_VERSION, such as
#   v2-alpha-tpuv6e, and SPOT=1 for a slice that may be taken away.
# FAWKES_JAX_EXTRAS: extras to install besides tpu and gcs.
# shellcheck disable=SC2016 # Single quotes hold what the hosts expand.
set -euo pipefail

fail() {
  echo "launch/tpu_vm.sh: $1" >&2
  exit 2
}

require() {
  # $1: a variable; $2: what it must be.
  [[ -n "${!1:-}" ]] || fail "$1 must be set to $2, got ''"
}

tpus() {
  gcloud compute tpus "$@" --project="$PROJECT" --zone="$ZONE"
}

on_all_hosts() {
  # $1: runs in bash in the home folder of each host. A host's TPU serves one
  # process, which keeps the lock as long as it lives.
  tpus tpu-vm ssh "$NAME" --worker=all --command="set -e
export FAWKES_JAX_VENV=\"\$HOME/fawkes_jax_venv\"
export FAWKES_JAX_EXTRAS=$(printf %q "$extras")
"'say() { echo "$(hostname): $1"; }
runs() { ! flock --nonblock fawkes_jax.lock true; }
'"$1"
}

create() {
  require ACCELERATOR_TYPE "a type of TPU, such as v6e-16"
  require RUNTIME_VERSION "its software, such as v2-alpha-tpuv6e"
  [[ "${SPOT:-0}" =~ ^[01]$ ]] || fail "SPOT must be 0 or 1, got '$SPOT'"
  if [[ "${SPOT:-0}" == 1 ]]; then
    set -- --spot "$@"
  fi
  tpus queued-resources create "$NAME" --node-id="$NAME" \
    --accelerator-type="$ACCELERATOR_TYPE" \
    --runtime-version="$RUNTIME_VERSION" "$@"
}

install() {
  local root folder
  root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
  folder="$(mktemp -d)"
  # shellcheck disable=SC2064 # The folder of now.
  trap "rm -rf '$folder'" EXIT
  tar -czf "$folder/fawkes_jax.tar.gz" -C "$root" --exclude=__pycache__ \
    LICENSE README.md checkpoints fawkes_jax launch pyproject.toml
  tpus tpu-vm scp "$folder/fawkes_jax.tar.gz" "$NAME:" --worker=all
  # Ubuntu 22.04, which most TPU hosts run, brings Python 3.10.
  on_all_hosts '
if runs; then say "a run is going on; stop it first" >&2; exit 2; fi
rm -rf fawkes_jax
mkdir fawkes_jax
tar -xzf fawkes_jax.tar.gz -C fawkes_jax
new="import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"
if ! python3 -c "$new" && ! python3.11 -c "$new"; then
  wait="-o DPkg::Lock::Timeout=600"
  sudo apt-get update -qq $wait
  sudo apt-get install -y -qq $wait python3.11-venv ||
    sudo apt-get install -y -qq $wait python3-venv
fi
say "fawkes-jax $(bash fawkes_jax/launch/local.sh --version)"'
}

run() {
  [[ $# -gt 0 ]] || fail "run needs flags of fawkes-jax cloak, got none"
  on_all_hosts "flags=($(printf '%q ' "$@"))"'
if runs; then say "a run is going on already" >&2; exit 2; fi
nohup flock --no-fork fawkes_jax.lock bash fawkes_jax/launch/local.sh cloak \
  --distributed "${flags[@]}" </dev/null >fawkes_jax.log 2>&1 &
echo $! >fawkes_jax.pid
say started'
}

status() {
  local state
  state="$(tpus queued-resources describe "$NAME" \
    --format="value(state.state)")"
  echo "$NAME: $state"
  if [[ "$state" == ACTIVE ]]; then
    on_all_hosts '
if runs; then say "a run is going on"; else say "no run is going on"; fi
if [[ -f fawkes_jax.log ]]; then tail -n 5 fawkes_jax.log; fi'
  fi
}

stop() {
  on_all_hosts '
if runs; then kill "$(cat fawkes_jax.pid)"; fi
flock --timeout 60 fawkes_jax.lock true
say stopped'
}

delete() {
  # The request owns the slice. gcloud asks before, unless --quiet is given.
  tpus queued-resources delete "$NAME" --force "$@"
}

subcommand="${1:-}"
case "$subcommand" in
create | install | run | status | stop | delete) shift ;;
*)
  fail "the first argument must be create, install, run, status, stop or\
 delete, got '$subcommand'"
  ;;
esac
require PROJECT "the name of a Google Cloud project"
require ZONE "a zone with TPUs, such as us-east5-b"
require NAME "the name of the slice, your choice"
command -v gcloud >/dev/null ||
  fail "gcloud must be installed (the Google Cloud CLI)"
extras="tpu,gcs${FAWKES_JAX_EXTRAS:+,$FAWKES_JAX_EXTRAS}"
"$subcommand" "$@"
