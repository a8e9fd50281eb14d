# Finds Python and keeps a virtual environment up to date; for the scripts beside it to source.
# shellcheck shell=bash

VENV="${UNNAS_VENV:-.venv}"

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

# The first Python from 3.11 on, newest version first among those that the package is tested with.
find_python() {
  local name
  for name in python3.13 python3.12 python3.11 python3 python; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  fail 'found no Python 3.11 or newer as python3.13, python3.12, python3.11, python3 or python; install one'
}

# The extra for this machine's fastest device: cuda, cuda12 for an older driver or GPU, or cpu.
device_extra() {
  local facts driver capability
  facts=$(nvidia-smi --query-gpu=driver_version,compute_cap --format=csv,noheader 2>/dev/null) || facts=''
  IFS=', ' read -r driver capability <<<"$facts"
  # CUDA 13 starts at the driver 580 and at the compute capability 7.5.
  if [[ ! $driver =~ ^[0-9]+ ]]; then
    echo cpu
  elif ((${driver%%.*} >= 580)) && [[ ${capability//./} =~ ^[0-9]+$ ]] && ((${capability//./} >= 75)); then
    echo cuda
  else
    echo cuda12
  fi
}

# What an installed environment depends on: the interpreter, this checkout, and what it asks for.
fingerprint() {
  "$VENV/bin/python" - "$PWD" <<'PYTHON'
import hashlib, pathlib, sys

content = b"".join(pathlib.Path(name).read_bytes() for name in ("setup.cfg", "pyproject.toml"))
print(sys.version.split()[0], sys.argv[1], hashlib.sha256(content).hexdigest())
PYTHON
}

# Whether $VENV is an environment that an installation can go into.
usable() {
  [[ ! -e $VENV/installing ]] &&
    "$VENV/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Installs the package with some extras (all,cuda) into $VENV, unless that is done already.
#
# $VENV/installing names the process that installs. Where it is left behind, the installation was
# interrupted, packages may be half there, and the environment is made anew. One stamp a list of
# extras, written last, says what is installed: runs and tests share an environment without taking
# turns.
prepare_environment() { # prepare_environment EXTRAS
  local extras=$1 python stamp installer
  stamp="$VENV/installed-$extras"
  if usable && [[ -f $stamp && $(<"$stamp") == "$(fingerprint)" ]]; then
    return
  fi
  if [[ -e $VENV/installing ]]; then
    installer=$(<"$VENV/installing")
    if [[ -n $installer ]] && kill -0 "$installer" 2>/dev/null; then
      fail "process $installer is installing into $VENV; wait for it"
    fi
  fi
  if ! usable; then
    python=$(find_python) || exit 2
    "$python" -m venv --clear "$VENV" ||
      fail "$python cannot make virtual environments; install its venv module (Debian, Ubuntu: apt install python3-venv)"
  fi
  printf 'Installing unnas_jax[%s] into %s (minutes, once) ...\n' "$extras" "$VENV" >&2
  printf '%s\n' $$ >"$VENV/installing"
  rm -f "$stamp"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extras]" ||
    fail 'the installation failed: the lines above say why; call again to start it anew'
  fingerprint >"$stamp"
  rm "$VENV/installing"
}
