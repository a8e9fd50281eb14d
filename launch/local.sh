#!/usr/bin/env bash
# Runs an experiment on this machine, which needs nothing but Python 3.11 or newer:
#
#   launch/local.sh --config=configs/rot_photos.py [--workdir=DIR] [any other flag of main.py]
#
# The first call makes a virtual environment in .venv at the root of the repository and installs
# the package there with all that recipes need, with CUDA where there is an NVIDIA GPU and with fast
# convolutions for CPUs elsewhere, where a run also keeps the memory that a step frees for the next
# (unnas_jax/core/memory.py); later calls find it up to date and start at once. Relative paths
# in flags count from the root of the repository, wherever this is called from. UNNAS_VENV names
# another place for the environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=launch/environment.sh
source launch/environment.sh
extra=$(device_extra)
prepare_environment "all,$extra"
if [[ $extra == cpu && -z ${GLIBC_TUNABLES+set} ]]; then
  GLIBC_TUNABLES=$("$VENV/bin/python" -m unnas_jax.core.memory)
  export GLIBC_TUNABLES
fi
exec "$VENV/bin/python" main.py "$@"
