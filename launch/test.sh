#!/usr/bin/env bash
# Checks everything: lint, format, types, documentation, shell scripts, tests; goes on after a
# failure and ends with a summary and one exit status.
#
#   launch/test.sh [arguments of pytest]
#
# UNNAS_VENV names another place for the virtual environment than .venv, UNNAS_PYTEST_ARGS replaces
# how pytest spreads the tests (default: -n 2 --dist loadfile), JAX_COMPILATION_CACHE_DIR where
# compiled programs are kept between runs (default: .jax_cache). UNNAS_LONG_TESTS=1 adds a test that
# takes minutes: a run of four processes that lose one, then of two, then of one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=launch/environment.sh
source launch/environment.sh
prepare_environment test

# Tests compile the same programs again and again; workers share what one of them compiled.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$PWD/.jax_cache}"
read -r -a spread <<<"${UNNAS_PYTEST_ARGS--n 2 --dist loadfile}"

summary=()
status=0

check() { # check NAME COMMAND...
  local name=$1 start=$SECONDS word=passed
  shift
  printf '\n== %s\n' "$name"
  if ! "$@"; then
    word=FAILED
    status=1
  fi
  summary+=("$(printf '%-12s %-7s %4d s' "$name" "$word" $((SECONDS - start)))")
}

scripts=(launch/*.sh launch/*.sbatch .ci/run)
check 'ruff check' "$VENV/bin/ruff" check .
check 'ruff format' "$VENV/bin/ruff" format --check .
check mypy "$VENV/bin/mypy"
check docs env NO_MKDOCS_2_WARNING=1 PYTHONPATH=. "$VENV/bin/mkdocs" build --strict --quiet
if command -v shellcheck >/dev/null; then
  check shellcheck shellcheck -x "${scripts[@]}"
else
  summary+=('shellcheck   skipped (not installed)')
fi
check pytest "$VENV/bin/pytest" ${spread[@]+"${spread[@]}"} "$@"

printf '\n'
printf '%s\n' "${summary[@]}"
exit "$status"
