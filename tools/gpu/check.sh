#!/usr/bin/env bash
# Everything that only a machine with a GPU can show, in one command:
#
#   tools/gpu/check.sh [WHEELS]                 all stages
#   tools/gpu/check.sh --stage NAME [WHEELS]    this one; may be given several times
#   tools/gpu/check.sh --list                   the stages, in their order
#
# WHEELS is a folder that tools/gpu/wheels.sh filled, and nothing is fetched from elsewhere. Without
# it, the requirements in pyproject.toml must be installed already.
#
# A stage that fails does not stop the others, and none may take longer than 8 minutes. Exits with 0
# if none failed. A stage whose tool is missing counts as absent, not as failed. The device's settings
# are read, never changed.
#
# Environment:
#   OUT      where the results go; by default docs/benchmarks, and those of asv asv_bench/results
#   PYTHON   the interpreter to start from (python3)
#   VENV     the environment that the stage build makes and the others use (build/gpu-check)
#   STARTED  date and time in the names of the results; by default now, in UTC: 2026-11-23-1504
#   COMMIT   hash of the commit that is measured; by default HEAD, if this is a clone
# and to try this script with less work: GPU_CHECK_PAGES, GPU_CHECK_MAX_PAGES, GPU_CHECK_BATCHES,
# GPU_CHECK_ITERATIONS and GPU_CHECK_CALLERS of the benchmarks, GPU_CHECK_TEST_PAGES of the tests,
# GPU_CHECK_SECONDS.
set -u

STAGES=(build facts bench256 benchmax parity tests memcheck racecheck initcheck asv)
ABSENT=77  # the status of a stage whose tool is missing

stage_build() {
  local beneath
  # The environment uses the pip of PYTHON. --system-site-packages alone is not enough: if PYTHON belongs
  # to a virtual environment, it would show the packages of the Python beneath that.
  "${PYTHON:-python3}" -m venv --without-pip --system-site-packages "$VENV" || return
  beneath=$("${PYTHON:-python3}" -c 'import sysconfig; print(sysconfig.get_path("purelib"))') || return
  "$python" - "$beneath" <<'CODE' || return
import pathlib, sys, sysconfig
link = pathlib.Path(sysconfig.get_path("purelib"), "beneath.pth")
link.write_text(f"import site; site.addsitedir({sys.argv[1]!r})\n")
CODE
  local install=("$python" -m pip --disable-pip-version-check install --no-index)
  if [ -n "$WHEELS" ]; then
    install+=(--find-links "$WHEELS")
    # Install all build tools here: the Cython of the Python beneath would see that Python's bindings,
    # which may not match the headers here.
    "${install[@]}" --quiet --no-deps --ignore-installed \
      -r <("$python" tools/gpu/requirements.py --build) || return
  fi
  "${install[@]}" --quiet -r <("$python" tools/gpu/requirements.py) || return
  "${install[@]}" --no-deps --no-build-isolation --force-reinstall . || return
  (cd / && "$python" -c 'import morphogen; print("built:", morphogen.__file__)')
}

stage_facts() {
  local file facts
  file=$(result_file .txt) || return
  {
    date --utc +'%F %T UTC'
    echo "commit ${COMMIT:-$(git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null)}"
    "$python" -VV
    command -v nvcc >/dev/null && nvcc --version | tail -n 2 || echo "nvcc is not here"
    "$VENV/bin/morphogen" doctor
  } >"$file"
  cat "$file"
  if ! command -v nvidia-smi >/dev/null; then
    echo "nvidia-smi is not here" | tee -a "$file"
    return "$ABSENT"
  fi
  # Ask for no serial numbers: the file is for the repository.
  facts=name,driver_version,vbios_version,memory.total,memory.used,temperature.gpu,pstate
  facts+=,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem,clocks_throttle_reasons.active
  facts+=,power.draw,power.limit,ecc.mode.current,mig.mode.current,compute_mode
  nvidia-smi --query-gpu="$facts" --format=csv | tee -a "$file"
  return "${PIPESTATUS[0]}"
}

stage_bench256() { bench "${GPU_CHECK_PAGES:-65536}" 65536 2,8,64 --phases; }
# This leaves out 64 callers, whose rounds would take longer than all the rest.
stage_benchmax() { bench "${GPU_CHECK_MAX_PAGES:-max}" max 2,8; }

bench() {  # PAGES NAME CALLERS [OPTION...]
  local file json status
  file=$(result_file "-$2") || return
  # Each row is written when it is measured, so an interrupted run leaves its rows in the CSV.
  json=$("$VENV/bin/morphogen" bench --device cuda --pages "$1" --page-size 4096 \
    --batch-sizes "${GPU_CHECK_BATCHES:-1,2,4,8,16,32}" \
    --iterations "${GPU_CHECK_ITERATIONS:-21}" \
    --strategies all --concurrency "${GPU_CHECK_CALLERS:-$3}" \
    --csv "$file.csv" --json "${@:4}")
  status=$?
  [ -n "$json" ] || return "$status"
  printf '%s\n' "$json" >"$file.json" || return
  echo "written: $file.csv and $file.json"
  return "$status"
}

stage_parity() { gpu_tests tests/gpu/test_gpu_parity.py; }
stage_tests() {
  local files
  # The files that use the mark: to collect all others takes most of a minute.
  mapfile -t files < <(grep -rl --include='test_*.py' 'pytest\.mark\.gpu' tests | grep -v test_gpu_parity)
  gpu_tests "${files[@]}"
}

gpu_tests() {  # ARGUMENT...
  need_gpu && "$python" -m pytest -q -m gpu --slow --numprocesses=0 -p no:cacheprovider "$@"
}

# The bindings ask the driver for functions that it may not have, which is no error; and the engine
# checks every call itself.
stage_memcheck() { sanitize memcheck --leak-check full --report-api-errors no; }
stage_racecheck() { sanitize racecheck; }
stage_initcheck() { sanitize initcheck; }

sanitize() {  # TOOL [OPTION...]
  local sanitizer output status
  if ! sanitizer=$(PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin type -P compute-sanitizer); then
    echo "compute-sanitizer is not here"
    return "$ABSENT"
  fi
  need_gpu || return
  output=$("$sanitizer" --tool "$@" --error-exitcode 1 "$python" tools/gpu/small_case.py 2>&1)
  status=$?
  echo "$output"
  # Some virtual machines do not let the sanitizer reach the device.
  [[ $status -ne 0 && $output == *"Device not supported"* ]] && return "$ABSENT"
  return "$status"
}

stage_asv() {
  need_gpu || return
  if ! "$python" -c 'import asv' || ! command -v git >/dev/null; then
    echo "asv or git is not here"
    return "$ABSENT"
  fi
  "$python" asv_bench/gpu_results.py --results "$ASV_RESULTS" --machine "$(device_slug)" \
    --commit "${COMMIT:-HEAD}"
}

need_gpu() {
  if [ ! -x "$python" ]; then
    echo "there is no environment in $VENV: --stage build makes it" >&2
    return 1
  fi
  "$python" -c 'import sys, morphogen
reason = morphogen.driver_status().reason
sys.exit(f"no GPU can be used: {reason}" if reason else 0)'
}

device_slug() {  # such as nvidia-h100-80gb-hbm3
  "$python" -c 'import re, morphogen
device = next(device for device in morphogen.driver_status().devices if device.usable)
print(re.sub("[^a-z0-9]+", "-", device.name.lower()).strip("-"))'
}

result_file() {  # ENDING
  local slug
  need_gpu && slug=$(device_slug) && mkdir -p "$RESULTS" && echo "$RESULTS/$STARTED-$slug$1"
}

run_stage() {  # NAME; adds a row to the table
  local started=$SECONDS status result
  printf '\n== %s\n' "$1"
  # Run it in the background: bash heeds no signal while it waits for a command in the foreground.
  timeout --kill-after=10 "${GPU_CHECK_SECONDS:-480}" "$script" --inside "$1" "$WHEELS" </dev/null &
  wait $!
  status=$?
  case $status in
    0) result=ok ;;
    "$ABSENT") result=absent ;;
    124 | 137) result="failed: out of time" ;;
    *) result="failed: $status" ;;
  esac
  [[ $result == failed* ]] && failed=1
  table+=$(printf '%-10s  %-19s  %7d' "$1" "$result" $((SECONDS - started)))$'\n'
}

script=$(realpath "${BASH_SOURCE[0]}")
# Paths on the command line are relative to the caller's folder, defaults to the repository.
WHEELS=
chosen=()
while [ $# -gt 0 ]; do
  case $1 in
    --list) printf '%s\n' "${STAGES[@]}"; exit ;;
    --stage) chosen+=("${2:-}"); shift ;;
    --inside) inside=$2; shift ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$script"; exit ;;
    -*) echo "unknown option $1 (see --help)" >&2; exit 2 ;;
    *) WHEELS=${1:+$(realpath -m "$1")} ;;
  esac
  shift
done
if [ -n "$WHEELS" ] && [ ! -d "$WHEELS" ]; then
  echo "no folder $WHEELS: tools/gpu/wheels.sh makes it" >&2
  exit 2
fi
root=$(dirname "$script")/../..
VENV=$(realpath -m "${VENV:-$root/build/gpu-check}")
OUT=${OUT:+$(realpath -m "$OUT")}
RESULTS=${OUT:-docs/benchmarks}
ASV_RESULTS=${OUT:-asv_bench}/${OUT:+asv-}results
# Read the clock once, so that all files of a run have the same name.
STARTED=${STARTED:-$(date --utc +%F-%H%M)}
python=$VENV/bin/python
cd "$root" || exit

if [ -n "${inside:-}" ]; then
  "stage_$inside"
  exit
fi
[ ${#chosen[@]} -gt 0 ] && stages=("${chosen[@]}") || stages=("${STAGES[@]}")
for stage in "${stages[@]}"; do
  if [[ " ${STAGES[*]} " != *" $stage "* ]]; then
    echo "no stage '$stage': --list shows them" >&2
    exit 2
  fi
done

set -m  # otherwise a process in the background ignores Ctrl-C, and so do its tests of Ctrl-C
trap 'kill $! 2>/dev/null; exit 130' INT TERM
failed=0
table=$(printf '%-10s  %-19s  %7s' stage result seconds)$'\n'
export VENV OUT STARTED
for stage in "${stages[@]}"; do
  run_stage "$stage"
done
printf '\n%s' "$table"
if [ "${stages[*]}" = "${STAGES[*]}" ] && file=$(result_file -stages.txt 2>/dev/null); then
  printf '%s' "$table" >"$file"
fi
exit "$failed"
