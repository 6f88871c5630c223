#!/usr/bin/env bash
# The development environment: makes .venv, or brings it up to date with the sources.
#
#     tools/dev.sh              then: . .venv/bin/activate
#     tools/dev.sh --no-hooks   leaves git's hooks as they are
#
# The package in it is an editable install: changed Python counts at once, changed C++, CUDA and Cython
# after this command once more, which compiles what changed (the build stays in build/dev).
# CXX, CXXFLAGS and PYTHON (default: python3) count when .venv and build/dev are made.
set -euo pipefail
cd "$(dirname "$0")/.."
case "$*" in
  "" | --no-hooks) ;;
  *) sed -n '2,/^set/{/^#/s/^# \?//p}' "$0" >&2; exit 2 ;;
esac
python=.venv/bin/python
pip=("$python" -m pip --disable-pip-version-check install --quiet)

[ -x "$python" ] || "${PYTHON:-python3}" -m venv .venv
# The build's requirements, which pip gives to an isolated build alone, and nvcc must be there first.
mapfile -t requirements < <("$python" - <<'REQUIREMENTS'
import tomllib
with open("pyproject.toml", "rb") as file:
    settings = tomllib.load(file)
print(*settings["build-system"]["requires"], sep="\n")
print(*settings["project"]["optional-dependencies"]["kernels"], sep="\n")
REQUIREMENTS
)
"${pip[@]}" "${requirements[@]}" cmake ninja
# With the requirements once more: pip must not put a newer version in place of a pinned one.
PATH="$PWD/.venv/bin:$PATH" "${pip[@]}" --no-build-isolation --config-settings=build-dir=build/dev \
  --editable '.[dev]' "${requirements[@]}"

# nvcc looks for its parts beside itself, so it is called where it lies, not linked to.
for tool in .venv/lib/python3.*/site-packages/nvidia/cu13/bin/{nvcc,nvdisasm,ptxas}; do
  printf '#!/bin/sh\nexec "%s" "$@"\n' "$PWD/$tool" >".venv/bin/${tool##*/}"
  chmod +x ".venv/bin/${tool##*/}"
done

[ $# -gt 0 ] || .venv/bin/pre-commit install >/dev/null
echo "Ready: . .venv/bin/activate"
