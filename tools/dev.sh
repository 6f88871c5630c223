#!/usr/bin/env bash
# The development environment: makes .venv, or brings it up to date with the sources.
#
#     tools/dev.sh              then: . .venv/bin/activate
#     tools/dev.sh --no-hooks   leaves git's hooks as they are
#
# It holds the package as an editable install. Changed Python takes effect at once. Changed C++, CUDA and
# Cython take effect after this command, which compiles changed files only (the build stays in build/dev).
# CXX, CXXFLAGS and PYTHON (default: python3) take effect when .venv and build/dev are made.
set -euo pipefail
cd "$(dirname "$0")/.."
case "$*" in
  "" | --no-hooks) ;;
  *) sed -n '2,/^set/{/^#/s/^# \?//p}' "$0" >&2; exit 2 ;;
esac
python=.venv/bin/python

[ -x "$python" ] || "${PYTHON:-python3}" -m venv .venv
# uv installs the others, in a tenth of pip's time. It trusts whom the system trusts, as pip does.
export UV_SYSTEM_CERTS=1
"$python" -m pip --disable-pip-version-check install --quiet uv
install=("$python" -m uv pip install --quiet --python "$python")
# Install the build's requirements and nvcc first: the build below is not isolated, so it brings none.
mapfile -t requirements < <("$python" - <<'REQUIREMENTS'
import tomllib
with open("pyproject.toml", "rb") as file:
    settings = tomllib.load(file)
print(*settings["build-system"]["requires"], sep="\n")
print(*settings["project"]["optional-dependencies"]["kernels"], sep="\n")
REQUIREMENTS
)
"${install[@]}" "${requirements[@]}" cmake ninja
# Name the requirements again, so that no newer version replaces a pinned one. uv would take an older build of the same
# version for this one.
PATH="$PWD/.venv/bin:$PATH" "${install[@]}" --no-build-isolation --config-settings=build-dir=build/dev \
  --reinstall-package morphogen --editable '.[dev]' "${requirements[@]}"

# nvcc looks for its parts beside itself, so a script calls it in its folder; a link does not work.
for tool in .venv/lib/python3.*/site-packages/nvidia/cu13/bin/{nvcc,nvdisasm,ptxas}; do
  printf '#!/bin/sh\nexec "%s" "$@"\n' "$PWD/$tool" >".venv/bin/${tool##*/}"
  chmod +x ".venv/bin/${tool##*/}"
done

[ $# -gt 0 ] || .venv/bin/pre-commit install >/dev/null
echo "Ready: . .venv/bin/activate"
