#!/usr/bin/env bash
# Whether the run in a workdir, a directory or gs://BUCKET/NAME, has reached its end: status 0 if so,
# 75 if the same command would go on. A run that SIGTERM stopped ends with status 0 too; what starts
# runs again must tell them apart.
#
#   launch/finished.sh WORKDIR
set -euo pipefail

workdir=${1:?usage: launch/finished.sh WORKDIR}

show() { # show FILE
  local python="${UNNAS_VENV:-.venv}/bin/python"
  if [[ $1 != gs://* ]]; then
    cat "$1"
    return
  fi
  [[ -x $python ]] || python=python
  "$python" -c 'import sys; from etils import epath; print(epath.Path(sys.argv[1]).read_text())' "$1"
}

case $(show "$workdir/config.json" 2>/dev/null | grep -o '"experiment": "[a-z]*"' || true) in
  # First, for it holds the config of its trainings, too. It counts its own units: ended in order,
  # none is left, and stopped by a signal its status was 75.
  *sample*) exit 0 ;;
  *search*) result=genotype.json ;;
  *train*) result=result.json ;;
  *) exit 75 ;;
esac
show "$workdir/$result" 2>/dev/null | grep '"finished": true' >/dev/null || exit 75
