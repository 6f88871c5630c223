#!/usr/bin/env bash
# Fill the folder that tools/gpu/check.sh installs from, on a machine with a package index:
#
#   tools/gpu/wheels.sh FOLDER
#
# It gets what pyproject.toml asks for to build, test and measure, and what that needs in turn, as
# wheels. Environment, with the defaults:
#   PYTHON_VERSION=3.12   of the machine with the GPU
#   ARCH=x86_64           its processor; or aarch64
#   GLIBC=28              the newest C library 2.N that wheels may need
#   PYTHON=python3        whose pip downloads
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
folder=$(realpath -m "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# pip takes a wheel only for a platform that is named: manylinux_2_28 does not stand for 2_24.
platforms=()
for minor in $(seq 5 "${GLIBC:-28}"); do
  platforms+=(--platform "manylinux_2_${minor}_${ARCH:-x86_64}")
done
# Not at once into the folder: of two versions of a package, pip would choose one.
mkdir -p "$folder"
new=$(mktemp -d "$folder/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
"${PYTHON:-python3}" -m pip --disable-pip-version-check download --quiet --only-binary=:all: \
  --implementation cp --python-version "${PYTHON_VERSION:-3.12}" "${platforms[@]}" \
  --dest "$new" -r <("${PYTHON:-python3}" tools/gpu/requirements.py)
rm -f "$folder"/*.whl
mv "$new"/*.whl "$folder"
du -sh "$folder"
