#!/usr/bin/env bash
# Everything that only a machine with a GPU can show, in one command: tools/gpu/check.sh --help
exec "${PYTHON:-python3}" "$(dirname "${BASH_SOURCE[0]}")/check.py" "$@"
