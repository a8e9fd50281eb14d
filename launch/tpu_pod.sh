#!/usr/bin/env bash
# Runs an experiment on a Cloud TPU slice of any size, on all its hosts, and starts it again after a
# preemption until it has finished:
#
#   launch/tpu_pod.sh run --name=NAME --zone=ZONE --type=v5litepod-16 [options] -- --config=configs/rot_in1k.py --workdir=DIR
#
# Commands:
#   up      make the slice or use the one there is; copy this checkout to its hosts and install it
#   run     up, then main.py with the flags behind -- on all hosts; shows what they print. Called
#           again while it runs it shows the same run; after a preemption it makes the slice anew.
#   logs    show what the run prints
#   stop    ask the run to save and leave (SIGTERM to one host stops all after the same step);
#           interrupt `run` first, or it starts the run again
#   down    delete the slice
#
# Options (environment variables of the same names in brackets):
#   --name=NAME        of the slice [TPU_NAME]
#   --zone=ZONE        where it is [TPU_ZONE]
#   --type=TYPE        accelerator type, such as v5litepod-16 (v5e), v4-32, v6e-8 [TPU_TYPE]
#   --version=VERSION  the hosts' software [TPU_VERSION]; default: by the type
#   --project=PROJECT  default: that of `gcloud config` [TPU_PROJECT]
#   --bucket=BUCKET    mounted on every host at ~/bucket with gcsfuse, for what gs://BUCKET/NAME does not
#                      serve (sweeps, image folders): --workdir=bucket/runs/X --config.dataset.path=bucket/X
#   --spot             a preemptible slice
#   --attempts=N       how often `run` starts (default 100)
#   --wait=SECONDS     between two attempts (default 60)
#   --dry-run          print the commands instead of running them
#
# `gcloud` must be installed and logged in.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

command=${1:-}
[[ $command =~ ^(up|run|logs|stop|down)$ ]] || fail 'give a command: up, run, logs, stop or down'
shift
name=${TPU_NAME:-} zone=${TPU_ZONE:-} type=${TPU_TYPE:-} version=${TPU_VERSION:-}
project=${TPU_PROJECT:-} bucket='' spot='' attempts=100 pause=60 dry=''
while (($#)); do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --bucket=*) bucket=${1#*=} ;;
    --attempts=*) attempts=${1#*=} ;;
    --wait=*) pause=${1#*=} ;;
    --spot) spot=1 ;;
    --dry-run) dry=1 ;;
    --)
      shift
      break
      ;;
    *) fail "unknown option $1; flags of main.py go behind --" ;;
  esac
  shift
done
[[ -n $name ]] || fail 'give --name=NAME of the slice'
[[ -n $zone ]] || fail 'give --zone=ZONE'
[[ $attempts =~ ^[0-9]+$ && $pause =~ ^[0-9]+$ ]] || fail '--attempts and --wait are numbers'
if [[ $command == up || $command == run ]]; then
  [[ -n $type ]] || fail 'give --type=TYPE, such as v5litepod-16'
fi
if [[ $command == run ]]; then
  (($#)) || fail 'give the flags of main.py behind --'
  [[ " $*" == *' --workdir='* ]] || fail 'give --workdir=DIR behind --, on a file system that all hosts share'
fi
if [[ -z $version ]]; then
  case $type in
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    *) version=tpu-ubuntu2204-base ;;
  esac
fi
place=("--zone=$zone" ${project:+"--project=$project"})

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Runs a command, or prints it.
do_it() {
  if [[ $dry ]]; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@"
  fi
}

tpu() { # tpu VERB [arguments]
  local verb=$1
  shift
  do_it gcloud compute tpus tpu-vm "$verb" "$name" "${place[@]}" "$@"
}

on_hosts() { # on_hosts WORKER COMMAND
  tpu ssh "--worker=$1" "--command=$2"
}

state() {
  if [[ $dry ]]; then
    echo ABSENT
  else
    gcloud compute tpus tpu-vm describe "$name" "${place[@]}" '--format=value(state)' 2>/dev/null || echo ABSENT
  fi
}

up() {
  local now
  now=$(state)
  case $now in
    READY) ;;
    PREEMPTED | TERMINATED | STOPPED)
      tpu delete --quiet || return
      now=ABSENT
      ;;
  esac
  if [[ $now == ABSENT ]]; then
    tpu create "--accelerator-type=$type" "--version=$version" ${spot:+--spot} || return
  fi
  do_it tar --exclude=./.git --exclude=./.venv --exclude=./runs --exclude='./.*_cache' -czf "$scratch/unnas_jax.tar.gz" . || return
  do_it gcloud compute tpus tpu-vm scp "$scratch/unnas_jax.tar.gz" "$name:" "${place[@]}" --worker=all || return
  # The hosts' system (Ubuntu 22.04) begins with Python 3.10. A run that goes on keeps its files.
  # shellcheck disable=SC2016  # The hosts expand these.
  on_hosts all 'mkdir -p unnas_jax && cd unnas_jax && { kill -0 "$(cat run.pid 2>/dev/null)" 2>/dev/null ||
    { rm -f run.status && tar -xzf ../unnas_jax.tar.gz && source launch/environment.sh &&
      { (find_python) >/dev/null 2>&1 || { sudo apt-get -qq update && sudo apt-get -qq install -y python3.11 python3.11-venv; }; } &&
      prepare_environment all,tpu,gcs; }; }' || return
  if [[ $bucket ]]; then
    # shellcheck disable=SC2016
    on_hosts all 'command -v gcsfuse >/dev/null || { echo "deb https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" | sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null && curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee /etc/apt/trusted.gpg.d/gcsfuse.asc >/dev/null && sudo apt-get -qq update && sudo apt-get -qq install -y gcsfuse; }' || return
    on_hosts all "mkdir -p ~/bucket unnas_jax && { mountpoint -q ~/bucket || gcsfuse --implicit-dirs $(printf %q "$bucket") ~/bucket; } && ln -sfn ~/bucket unnas_jax/bucket"
  fi
}

# Starts main.py on every host unless it runs already, and shows what it prints until it ends. The
# run outlives this connection; its status is kept beside its log.
run_once() {
  local flags workdir argument
  flags=$(printf ' %q' "$@")
  for argument; do
    [[ $argument == --workdir=* ]] && workdir=$(printf %q "${argument#*=}")
  done
  # shellcheck disable=SC2016
  on_hosts all 'cd unnas_jax && { kill -0 "$(cat run.pid 2>/dev/null)" 2>/dev/null ||
    { rm -f run.status; nohup bash -c '"'"'.venv/bin/python main.py "$@"; echo $? >run.status'"'"' run'"$flags"' >run.log 2>&1 & echo $! >run.pid; }; } &&
    tail -n +1 -F --pid="$(cat run.pid)" run.log; status=$(cat run.status) && ((status == 0)) && exec launch/finished.sh '"$workdir"'; exit "${status:-75}"'
}

# Whether the run of a host ended with status 2, a mistake that another start would meet again: of a
# command on all hosts gcloud does not say which ended how.
refused() {
  local statuses
  [[ ! $dry ]] || return
  statuses=$(on_hosts all 'cat unnas_jax/run.status' 2>/dev/null || true)
  grep -qx 2 <<<"$statuses"
}

case $command in
  up) up ;;
  logs) on_hosts all 'tail -n 100 -F unnas_jax/run.log' ;;
  stop)
    # What run.pid names is the shell that notes the status: the signal is for its child.
    # shellcheck disable=SC2016
    on_hosts 0 'pkill -TERM -P "$(cat unnas_jax/run.pid)"'
    ;;
  down) tpu delete --quiet ;;
  run)
    for ((attempt = 1; attempt <= attempts; attempt++)); do
      status=0
      up || status=$?
      ((status == 2)) && fail 'gcloud refuses; its message is above'
      if ((status == 0)); then
        run_once "$@" || status=$?
        ((status == 0)) && exit 0
        if ((status == 2)) || refused; then
          fail 'the run ends in a mistake that another start would meet again; its message is above'
        fi
      fi
      [[ $dry ]] && exit 0
      printf 'Attempt %d ended with status %d; again in %d s.\n' "$attempt" "$status" "$pause" >&2
      sleep "$pause"
    done
    fail "not finished after $attempts attempts; the same command continues"
    ;;
esac
