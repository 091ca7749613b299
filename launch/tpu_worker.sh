#!/usr/bin/env bash
# What launch/tpu_vm.sh has each worker of a TPU VM do. It lies in the home directory there, beside code.bundle.
#
#   tpu_worker.sh setup BUCKET | start WORKDIR FLAGS... | status | stop
# shellcheck disable=SC2329 # the functions are called by the name of the command, last lines
set -euo pipefail
cd ~

# Code, Python, packages, and the bucket as ~/bucket. May be run again, but not under a run.
setup() {
  not_running
  if ! command -v gcsfuse > /dev/null; then
    local key=/usr/share/keyrings/cloud.google.asc
    curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee "$key" > /dev/null
    echo "deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list > /dev/null
    sudo apt-get -qq -o DPkg::Lock::Timeout=600 update # the first boot's own upgrades may hold the lock
    sudo apt-get -qq -y -o DPkg::Lock::Timeout=600 install gcsfuse
  fi
  mkdir -p bucket
  mountpoint -q bucket || gcsfuse --implicit-dirs "$1" bucket
  rm -rf imagenet_jax
  git -c advice.detachedHead=false clone --quiet code.bundle imagenet_jax
  # The images come with Python 3.10; uv brings a newer one.
  python3 -m pip install --quiet --user uv
  [[ -x venv/bin/python ]] || .local/bin/uv venv --quiet --python=3.12 venv
  .local/bin/uv pip install --quiet --python=venv/bin/python --editable 'imagenet_jax[tpu,gcs]'
}

# The trainer, in a session of its own: it outlives this connection. (With & it would start deaf to SIGINT.)
start() {
  local workdir=$1
  shift
  not_running
  rm -f run.exit run.pid
  setsid --fork nohup bash "$0" attend venv/bin/python -m imagenet_jax.main --workdir="$workdir" "$@" >> run.log 2>&1 < /dev/null
  until [[ -e run.pid ]]; do sleep 0.1; done
}

# Run a command and leave its exit code behind. The lock is held until both are gone: the trainer is dead for a moment before its
# exit code is written.
attend() {
  local code=0
  exec 9> run.lock
  flock 9
  bash -c 'echo $$ > run.pid && exec "$@"' run "$@" || code=$?
  echo "$code" > run.end
  mv run.end run.exit
}

not_running() {
  [[ $(status) != *running ]] || { echo "error: a run is going on here." >&2 && exit 1; }
}

# "status: " and idle, running, lost (it ended without a word: the machine went down), or its exit code.
status() {
  if [[ ! -e run.pid ]]; then
    echo 'status: idle'
  elif [[ ! -e run.exit ]] && ! flock --nonblock run.lock true; then
    echo 'status: running'
  elif [[ -e run.exit ]]; then
    echo "status: $(< run.exit)"
  else
    echo 'status: lost'
  fi
}

# Ask the trainer to save and end. One process of a run is enough: they agree. SIGTERM is what comes when a machine goes down.
stop() {
  kill -INT "$(< run.pid)"
}

case ${1-} in
  setup | start | attend | status | stop) "$@" ;;
  *) echo "error: no command '${1-}'." >&2 && exit 2 ;;
esac
