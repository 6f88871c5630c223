#!/usr/bin/env bash
# Measure the last commits and publish the dashboard: --help, docs/dashboard.md.
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname "${BASH_SOURCE[0]}")/dashboard.py" "$@"
