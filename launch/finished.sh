#!/usr/bin/env bash
# Whether the run in a workdir has reached its end: status 0 if so, 75 if the same command would go
# on. A run that SIGTERM stopped ends with status 0 too; what starts runs again must tell them apart.
#
#   launch/finished.sh WORKDIR
set -euo pipefail

workdir=${1:?usage: launch/finished.sh WORKDIR}
case $(grep -o '"experiment": "[a-z]*"' "$workdir/config.json" 2>/dev/null || true) in
  *search*) result=genotype.json ;;
  *train*) result=result.json ;;
  *sample*) exit 0 ;; # It counts its own units: ended in order, none is left.
  *) exit 75 ;;
esac
grep -qs '"finished": true' "$workdir/$result" || exit 75
