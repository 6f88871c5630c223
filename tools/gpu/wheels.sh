#!/usr/bin/env bash
# Fill the folder that tools/gpu/check.sh installs from, on a machine with a package index:
#
#   tools/gpu/wheels.sh [--have FILE] FOLDER
#
# FILE lists what the machine with the GPU has, as `pip list --format=freeze` prints it; by default
# tools/gpu/have.txt. Of all other requirements in pyproject.toml to build, test and measure, and of all that
# they require in turn, the folder gets wheels; and a finished wheel of morphogen, if the Python for it is here.
# Environment, with the defaults:
#   PYTHON_VERSION=3.12   of the machine with the GPU
#   ARCH=x86_64           its processor; or aarch64
#   GLIBC=28              the newest C library 2.N that wheels may need
#   PYTHON=python3        whose pip downloads
#   TARGET=python3.12     builds the finished wheel; empty for none
#   HOST=                 a folder for an environment of TARGET with what is left out: that of such a machine, to try
set -euo pipefail
have=$(dirname "${BASH_SOURCE[0]}")/have.txt
[ "${1:-}" = --have ] && [ $# -eq 3 ] && { have=$2; shift 2; }
[ $# -eq 1 ] && [ -f "$have" ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
folder=$(realpath -m "$1") have=$(realpath "$have") host=${HOST:+$(realpath -m "$HOST")}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python3} version=${PYTHON_VERSION:-3.12} arch=${ARCH:-x86_64}

# pip takes wheels only of the platforms that are named: manylinux_2_28 does not include 2_24.
platforms=()
for minor in $(seq 5 "${GLIBC:-28}"); do
  platforms+=(--platform "manylinux_2_${minor}_$arch")
done
# Download into a new folder: if the folder had two versions of a package, pip would choose one.
mkdir -p "$folder"
new=$(mktemp -d "$folder/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
"$python" -m pip --disable-pip-version-check download --quiet --only-binary=:all: \
  --implementation cp --python-version "$version" "${platforms[@]}" \
  --dest "$new" -r <("$python" tools/gpu/requirements.py)
"$python" tools/gpu/left_out.py "$new" "$have" "$version"

target=${TARGET-python$version}
if [ -n "$target" ]; then
  # The name may be pyenv's, for a Python that is not active.
  for target in "$target" "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/$version".*/bin/"python$version" \
    "$(uv python find "$version" 2>/dev/null || "$python" -m uv python find "$version" 2>/dev/null)" ''; do
    "$target" -c 'import venv' 2>/dev/null && break
  done
fi
if [ "$arch" != "$(uname -m)" ] || [ -z "$target" ]; then
  echo "no finished wheel: no Python $version for $arch was found (TARGET=...). The check will build one" >&2
else
  "$python" tools/release/build_wheel.py --python "$target" --output "$new"
  rm -f "$new"/*.tar.gz
fi
if [ -n "$host" ]; then
  "$target" -m venv --clear "$host"
  "$host/bin/python" -m pip --disable-pip-version-check install --quiet --no-index --no-deps "$new"/left-out/*.whl
fi
rm -r "$new/left-out"
git describe --always --dirty --abbrev=40 --exclude='*' >"$new/COMMIT" 2>/dev/null || rm -f "$new/COMMIT"
rm -f "$folder"/*.whl "$folder/COMMIT"
mv "$new"/* "$folder"
du -sh "$folder"
[ "$(du -sm "$folder" | cut -f 1)" -lt 64 ] || echo "that is much: give --have the host's own list" >&2
