#!/usr/bin/env bash
# Fill the folder that tools/gpu/check.sh installs from, on a machine with a package index:
#
#   tools/gpu/wheels.sh FOLDER
#
# It downloads as wheels the requirements in pyproject.toml to build, test and measure, and all that
# they require in turn. Environment, with the defaults:
#   PYTHON_VERSION=3.12   of the machine with the GPU
#   ARCH=x86_64           its processor; or aarch64
#   GLIBC=28              the newest C library 2.N that wheels may need
#   PYTHON=python3        whose pip downloads
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
folder=$(realpath -m "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# pip takes wheels only of the platforms that are named: manylinux_2_28 does not include 2_24.
platforms=()
for minor in $(seq 5 "${GLIBC:-28}"); do
  platforms+=(--platform "manylinux_2_${minor}_${ARCH:-x86_64}")
done
# Download into a new folder: if the folder had two versions of a package, pip would choose one.
mkdir -p "$folder"
new=$(mktemp -d "$folder/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
"${PYTHON:-python3}" -m pip --disable-pip-version-check download --quiet --only-binary=:all: \
  --implementation cp --python-version "${PYTHON_VERSION:-3.12}" "${platforms[@]}" \
  --dest "$new" -r <("${PYTHON:-python3}" tools/gpu/requirements.py)
rm -f "$folder"/*.whl
mv "$new"/*.whl "$folder"
du -sh "$folder"
