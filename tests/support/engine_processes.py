"""An engine of a device, "cpu", "cpu,cpu" or "cuda", in a process that forks or just ends."""

from __future__ import annotations

import subprocess
import sys

SETUP = """
import os, sys, threading
import numpy as np
import morphogen as mg

device = sys.argv[1]
options = {"threads": 3} if device == "cpu" else {}
array = np.random.default_rng(0).integers(0, 256, (900, 4001), dtype=np.uint8)
pages = mg.PageMatrix(array)
engine = mg.open_engine(pages, device, **options)
queries = list(mg.make_query([1, 899], 900))

def right(engine):
    found = engine.answer(queries).pages
    return np.array_equal(found[0] ^ found[1], array[[1, 899]])

assert right(engine)
"""

EXIT = 'print("done")'

FORK = """
def in_child():
    checks = []
    for use in (lambda: engine.answer(queries), lambda: engine.answer([]), engine.read_pages):
        try:
            use()
        except mg.EngineClosedError as error:
            checks.append(f"to process {os.getppid()}, not to its fork {os.getpid()}" in str(error))
        else:
            checks.append(False)
    engine.close()
    with engine:
        pass
    try:
        with mg.open_engine(pages, device, **options) as own:
            checks.append(right(own))
    except mg.DeviceError:
        # CUDA itself does not work in the child of a process that has used it.
        checks.append(device == "cuda")
    return all(checks)

def fork():
    child = os.fork()
    if child == 0:
        good = in_child()
        sys.exit(0 if good else 3)  # as a child does that ends on its own
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for _ in range(3):
    assert fork() == 0
    assert right(engine)

if device != "cuda":  # CUDA's driver does not promise that a process may fork while it is in use
    stop = threading.Event()
    first = threading.Event()
    def work():
        while not stop.is_set():
            assert right(engine)
            first.set()
    worker = threading.Thread(target=work)
    worker.start()
    first.wait()
    assert [fork() for _ in range(5)] == [0] * 5
    stop.set()
    worker.join()
    assert right(engine)
engine.close()
print("done")
"""


def assert_ends_well(script: str, device: str) -> None:
    """Run a script after SETUP; it must end without an error or a word on stderr."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SETUP + script, device]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stderr, result.stdout) == (0, "", "done\n")
