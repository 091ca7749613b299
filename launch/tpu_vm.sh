#!/usr/bin/env bash
# One run on a TPU VM or a slice of several, from nothing to the end, and again after each preemption.
#
#   launch/tpu_vm.sh up NAME --zone=ZONE --accelerator=v5litepod-16 --bucket=BUCKET [--spot] [--dry_run] -- TRAINER'S FLAGS
#
# `up` requests the TPU, waits for it, sets it up, trains in gs://BUCKET/runs/NAME, and deletes the TPU, however it ends. When the
# TPU is taken away it requests another and goes on from the last checkpoint. Run again after a lost connection, it finds the run and
# watches on. Ctrl-C saves, then deletes. Its exit code is the trainer's. The steps one by one, with the same flags:
#
#   create, setup, start, status, logs, stop (save and end), fetch (to runs/NAME), delete
#
# --dry_run prints the commands. Project and account are gcloud's (gcloud config set project ...).
# shellcheck disable=SC2329 # the functions are called by the name of the command, last line
set -euo pipefail

RESTARTS=100       # taken away more often than that, something else is wrong
MISSES=10          # looks in a row that fail, before we give up
POLL=${TPU_POLL:-60} # seconds between two looks

die() {
  echo "error: $1" >&2
  exit "${2-1}"
}

# Run a command, or print it.
run() {
  if [[ $dry_run ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

queued() { run gcloud compute tpus queued-resources "$1" "$name" --zone="$zone" "${@:2}"; }
workers() { run gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker="$1" --command="$2"; }

# Set `state` to the request's, to ABSENT where there is none, or to UNKNOWN where gcloud does not say.
look() {
  if [[ $dry_run ]]; then
    queued describe --format='value(state.state)'
    state=${state:+ACTIVE} state=${state:-ABSENT} # absent at first, then there
  elif ! state=$(queued describe --format='value(state.state)' 2> "$scratch/describe"); then
    if grep -q NOT_FOUND "$scratch/describe"; then state=ABSENT; else state=UNKNOWN; fi
  fi
}

create() {
  look
  [[ $state != UNKNOWN ]] || die "gcloud does not tell the state of $name in $zone: $(< "$scratch/describe")"
  if [[ $state == FAILED || $state == SUSPEND* ]]; then # what an earlier preemption left
    delete
    state=ABSENT
  fi
  if [[ $state == ABSENT ]]; then
    echo "Requesting $accelerator in $zone as $name."
    queued create --node-id="$name" --accelerator-type="$accelerator" --runtime-version="$(runtime)" ${spot:+--spot} ||
      die "gcloud refused the request for $accelerator in $zone (above). For quota, ask for more, or use another --zone."
  fi
  local misses=0
  until look && [[ $state == ACTIVE || $state == SUSPEND* ]]; do
    case $state in
      FAILED) die "The request $name failed: $(queued describe --format='value(state.failedData.error.message)')" ;;
      ABSENT) die "The request $name was deleted while it waited." ;;
      UNKNOWN) ((++misses < MISSES)) || die "gcloud does not tell the state of $name: $(< "$scratch/describe")" ;;
      *) misses=0 && echo "$(date +%T) $name: $state" ;;
    esac
    sleep "$POLL"
  done
}

# The software that the TPU boots with (cloud.google.com/tpu/docs/runtimes).
runtime() {
  case $accelerator in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

setup() {
  [[ -z $(git -C "$root" status --porcelain) ]] || echo "What is not committed stays here: $(git -C "$root" status --porcelain | wc -l) files."
  run git -C "$root" bundle create --quiet "$scratch/code.bundle" HEAD
  local tries=0
  # A TPU that has just become active may not let us in yet.
  until run gcloud compute tpus tpu-vm scp "$scratch/code.bundle" "$root/launch/tpu_worker.sh" "$name:" --zone="$zone" --worker=all; do
    ((++tries < MISSES)) || die "No connection to $name after $tries tries."
    sleep "$POLL"
  done
  workers all "bash tpu_worker.sh setup $bucket" || die "Setting up $name failed (above)."
}

start() {
  workers all "bash tpu_worker.sh start bucket/runs/$name$(printf ' %q' "${trainer[@]}")" || die "The trainer did not start (above)."
}

status() { workers all 'bash tpu_worker.sh status'; }
logs() { workers all 'tail -n 100 -F run.log'; }
stop() { workers 0 'bash tpu_worker.sh stop'; }
fetch() { run gcloud storage rsync --recursive "gs://$bucket/runs/$name" "runs/$name"; }
delete() { queued delete --force --quiet; }

# Wait for the end of the run. Sets `code` to its exit code, or to lost where the TPU was taken away.
watch() {
  local said misses=0 failed=''
  while true; do
    if [[ $dry_run ]]; then
      status
      code=0 && return
    fi
    said=$(status 2> "$scratch/status" | sed -n 's/.*status: //p') || said='' # one word a worker
    code=$(grep -Evx '0|running' <<< "$said" | head -n 1) || true
    look
    if [[ $state == ABSENT || $state == DELETING ]]; then
      die "$name was deleted: the run stopped there. Its checkpoints are in gs://$bucket/runs/$name."
    elif [[ $state != ACTIVE && $state != UNKNOWN ]]; then
      code=lost && return
    elif [[ $state == UNKNOWN || ! $said ]]; then
      if ((++misses == MISSES)); then
        [[ $state == ACTIVE ]] || die "gcloud does not tell the state of $name: $(< "$scratch/describe")"
        code=lost && return
      fi
    elif [[ ! $code ]]; then
      [[ $said == *running* ]] || { code=0 && return; }
      misses=0 failed=''
    elif [[ $code == lost || $code == idle || $code == 143 ]]; then # 143: SIGTERM, the machine goes down
      code=lost && return
    elif [[ $failed ]]; then
      return
    else
      failed=1 # the others of a slice fail when one is taken away, which shows at the next look
    fi
    sleep "$POLL"
  done
}

up() {
  trap left EXIT
  trap 'interrupted 129' HUP
  trap 'interrupted 130' INT
  trap 'interrupted 143' TERM
  for ((restart = 0; restart <= RESTARTS; restart++)); do
    code=lost
    create
    if [[ $state == ACTIVE ]]; then
      if [[ $dry_run || $(status 2> /dev/null) != *running* ]]; then
        setup
        start
      fi
      watch
      [[ $code == lost ]] || break
    fi
    echo "$name was taken away; requesting another."
    delete
  done
  [[ $code != lost ]] || die "$name was taken away $restart times."
  echo "The run ended with exit code $code: gs://$bucket/runs/$name"
  exit "$code"
}

# However `up` ends, nothing is left that costs money.
left() {
  local code=$?
  trap - EXIT
  look
  [[ $state == ABSENT ]] || delete || die "$name may still exist AND COST MONEY: $0 delete $name --zone=$zone"
  rm -rf "$scratch"
  exit "$code"
}

interrupted() {
  trap - HUP INT TERM # the second time ends at once
  echo "Saving, then deleting $name." || true # the terminal may be gone
  stop && watch
  exit "$1"
}

# ---- flags
command=${1-} name=${2-} zone='' accelerator='' bucket='' spot='' dry_run='' state='' code='' trainer=()
case $command in
  up | create | setup | start | status | logs | stop | fetch | delete) ;;
  *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2 && exit 2 ;;
esac
[[ $name =~ ^[a-z][-a-z0-9]*[a-z0-9]$ ]] || die "NAME '$name' must be lower-case letters, digits and hyphens, as gcloud asks." 2
shift 2
while (($#)); do
  case $1 in
    --zone=?*) zone=${1#*=} ;;
    --accelerator=?*) accelerator=${1#*=} ;;
    --bucket=?*) bucket=${1#*=} ;;
    --spot) spot=1 ;;
    --dry_run) dry_run=1 ;;
    --) shift && trainer=("$@") && break ;;
    *) die "unknown argument $1" 2 ;;
  esac
  shift
done
[[ $zone || $command == fetch ]] || die "--zone=ZONE is needed." 2
[[ $accelerator || ! $command =~ ^(up|create)$ ]] || die "--accelerator=TYPE is needed, such as v5litepod-8." 2
[[ $bucket =~ ^[a-z0-9][-_.a-z0-9]*$ || ! $command =~ ^(up|setup|fetch)$ ]] || die "--bucket=BUCKET is needed, a name without gs://." 2
[[ ${trainer[*]-} == *--config* || ! $command =~ ^(up|start)$ ]] || die "Give the trainer's flags after --: -- --config=... --data_dir=gs://..." 2

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$command"
