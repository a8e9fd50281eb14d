#!/usr/bin/env bash
# Whether the run in a workdir has reached its end: status 0 if so, 75 if the same command would go
# on. A run that SIGTERM stopped ends with status 0 too; what starts runs again must tell them apart.
#
#   launch/finished.sh WORKDIR
set -euo pipefail

workdir=${1:?usage: launch/finished.sh WORKDIR}
case $(grep -o '"experiment": "[a-z]*"' "$workdir/config.json" 2>/dev/null || true) in
  # First, for it holds the config of its trainings, too. It counts its own units: ended in order,
  # none is left, and stopped by a signal its status was 75.
  *sample*) exit 0 ;;
  *search*) result=genotype.json ;;
  *train*) result=result.json ;;
  *) exit 75 ;;
esac
grep -qs '"finished": true' "$workdir/$result" || exit 75
