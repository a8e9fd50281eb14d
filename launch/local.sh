#!/usr/bin/env bash
# Runs an experiment on this machine, which needs nothing but Python 3.11 or newer:
#
#   launch/local.sh --config=configs/rot_photos.py [--workdir=DIR] [any other flag of main.py]
#
# The first call makes a virtual environment in .venv at the root of the repository and installs
# the package there with all that recipes need, with CUDA where there is an NVIDIA GPU and with fast
# convolutions for CPUs elsewhere; later calls find it up to date and start at once. Relative paths
# in flags count from the root of the repository, wherever this is called from. UNNAS_VENV names
# another place for the environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=launch/environment.sh
source launch/environment.sh
prepare_environment "all,$(device_extra)"
exec "$VENV/bin/python" main.py "$@"
