#!/usr/bin/env bash
# Runs an experiment on a TPU slice of a GKE cluster, as the JobSet of launch/gke_jobset.yaml:
#
#   launch/gke.sh --name=NAME --image=IMAGE --accelerator=tpu-v5-lite-podslice --topology=4x4 --bucket=BUCKET -- --config=configs/rot_in1k.py --workdir=/bucket/runs/rot_in1k
#
# Options:
#   --name=NAME          of the JobSet; `kubectl logs -f -l jobset.sigs.k8s.io/jobset-name=NAME` shows
#                        what it prints, `kubectl delete jobset NAME` stops it
#   --image=IMAGE        a container with this checkout as its working directory, installed with the
#                        extras all,tpu
#   --accelerator=KIND   tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice, ...
#   --topology=AxB       of the slice
#   --chips=N            of a host (default 4)
#   --bucket=BUCKET      mounted at /bucket, for the workdir and data that all hosts must see
#   --account=ACCOUNT    Kubernetes service account that may use the bucket (default: default)
#   --restarts=N         how often a lost run is started again (default 100)
#   --dry-run            print the JobSet instead of applying it
#
# The cluster needs the JobSet controller and the Cloud Storage FUSE driver; `kubectl` must be
# connected to it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

name='' image='' accelerator='' topology='' chips=4 bucket='' account=default restarts=100 dry=''
while (($#)); do
  case $1 in
    --name=*) name=${1#*=} ;;
    --image=*) image=${1#*=} ;;
    --accelerator=*) accelerator=${1#*=} ;;
    --topology=*) topology=${1#*=} ;;
    --chips=*) chips=${1#*=} ;;
    --bucket=*) bucket=${1#*=} ;;
    --account=*) account=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --dry-run) dry=1 ;;
    --)
      shift
      break
      ;;
    *) fail "unknown option $1; flags of main.py go behind --" ;;
  esac
  shift
done
for option in name image accelerator topology bucket; do
  [[ ${!option} ]] || fail "give --$option=..."
done
[[ $topology =~ ^[0-9]+(x[0-9]+){1,2}$ ]] || fail "--topology=$topology: write AxB or AxBxC"
[[ $chips =~ ^[1-9][0-9]*$ && $restarts =~ ^[0-9]+$ ]] || fail '--chips and --restarts are numbers'
total=$((${topology//x/*}))
((total % chips == 0)) || fail "--topology=$topology has $total chips, which --chips=$chips does not divide"
workdir=''
for argument; do
  [[ $argument == --workdir=* ]] && workdir=${argument#*=}
done
[[ $workdir == /bucket/* ]] || fail 'give --workdir=/bucket/... behind --'

# As a YAML scalar in single quotes.
quoted() {
  printf "'%s'" "${1//\'/\'\'}"
}

flags=''
for argument; do
  flags+="${flags:+$'\n'                    }- $(quoted "$argument")"
done
text=$(<gke_jobset.yaml)
# Puts a value in the place of ${KEY}.
fill() { # fill KEY VALUE
  local mark="\${$1}"
  text=${text//"$mark"/"$2"}
}

fill NAME "$name"
fill IMAGE "$(quoted "$image")"
fill ACCELERATOR "$accelerator"
fill TOPOLOGY "$topology"
fill CHIPS_PER_HOST "$chips"
fill HOSTS "$((total / chips))"
fill BUCKET "$bucket"
fill SERVICE_ACCOUNT "$account"
fill RESTARTS "$restarts"
fill WORKDIR "$(printf %q "$workdir")"
fill FLAGS "$flags"
if [[ $dry ]]; then
  printf '%s\n' "$text"
else
  kubectl apply -f - <<<"$text"
fi
