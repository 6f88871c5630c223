"""The choice of kernel variants for a device, which `morphogen tune` measured and left in a file.

A choice holds for the device's name, the driver and the version of this package. A file that is
damaged, foreign or stale is passed over with a warning: without a choice the default kernels run.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import morphogen
from morphogen.checks import find_home, names_file
from morphogen.engine.cuda.status import DeviceStatus, DriverStatus, driver_status
from morphogen.engine.cuda.variants import fitting
from morphogen.pages.mapped_file import open_file

VARIABLE = "MORPHOGEN_TUNING"
_FORMAT = 1
_MOST_BYTES = 1 << 20  # a file of more is none of ours


@dataclass(frozen=True, slots=True)
class Tuning:
    """The variants that a device takes by itself.

    Attributes
    ----------
    kernels : mapping of int to str
        By the most keys of a kernel the variant that takes its place.
    reason : str
        Where that comes from, or why there is none, in words.
    """

    kernels: Mapping[int, str] = field(default_factory=dict)
    reason: str = ""


def tuning_path() -> Path | None:
    """The file of choices: that of the environment variable, or one in the user's configuration.

    Returns
    -------
    Path or None
        None if the variable is there and empty, or the user has no home, as in some containers:
        then no choice is read.
    """
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named) if named else None
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    # The specification tells to pass relative paths over.
    if folder.startswith("/"):
        return Path(folder, "morphogen", "tuning.json")
    home = find_home()
    return None if home is None else home / ".config" / "morphogen" / "tuning.json"


def tuning_of(ordinal: int) -> Tuning:
    """The choice for a device of this process, if there is one.

    Parameters
    ----------
    ordinal : int
        N of "cuda:N".

    Returns
    -------
    Tuning
        Without kernels, if there is none that holds. A warning says so, unless there is no file.
    """
    path = tuning_path()
    if path is None:
        return Tuning(reason=f"{VARIABLE} names no file")
    try:
        content = _parse(_read(path))
    except FileNotFoundError:
        return Tuning(reason="not tuned: morphogen tune measures which are best")
    except (OSError, ValueError) as error:
        return _passed_over(path, str(error))
    status = driver_status()
    if ordinal >= len(status.devices):
        return Tuning(reason="no such device")
    return _choose(path, content, status, status.devices[ordinal])


def check_output(path: Path) -> None:
    """Find out whether `write_tuning` could write a file, before something is measured for it.

    Parameters
    ----------
    path : Path
        Its folder is made.

    Raises
    ------
    ValueError, OSError
        As from `write_tuning`.
    """
    _known(path)
    folder = Path(os.path.realpath(path)).parent  # a link is followed
    with names_file(path):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def write_tuning(
    path: Path, status: DriverStatus, device: DeviceStatus, kernels: Mapping[int, str], note: str
) -> None:
    """Write the choice for a device, beside those of other devices in the file.

    Parameters
    ----------
    path : Path
        Its folder is made.
    status : DriverStatus
    device : DeviceStatus
    kernels : mapping of int to str
        By the most keys of a kernel its variant; may be empty.
    note : str
        What was measured.

    Raises
    ------
    ValueError
        If there is another file, which is no file of choices.
    OSError
        If the file cannot be read or written. It names the file.
    """
    key = _key(status, device)
    choice = {**key, "kernels": {str(keys): kernels[keys] for keys in sorted(kernels)}}
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".morphogen-{secrets.token_hex(6)}.tmp")
    _known(path)  # or nothing is made
    with names_file(path, instead_of=temporary):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone_in(target.parent):
            others = [one for one in _known(path) if {name: one.get(name) for name in key} != key]
            choices = [*others, {**choice, "note": note}]
            text = json.dumps({"format": _FORMAT, "choices": choices}, indent=2)
            try:
                temporary.write_text(text + "\n", encoding="utf-8")
                temporary.replace(target)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Write as the only one: of two that read the same file, one would lose the other's choice."""
    with ExitStack() as stack:
        with suppress(OSError):  # some file systems lock no folders
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _key(status: DriverStatus, device: DeviceStatus) -> dict[str, str]:
    """What a choice holds for."""
    return {
        "device": device.name,
        "driver": status.driver_version,
        "morphogen": morphogen.__version__,
    }


def _read(path: Path) -> bytes:
    """The bytes of a file; ValueError if it is none, or none of ours."""
    with open_file(path, ValueError) as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError("it is too long")
    return data


def _parse(data: bytes) -> list[dict[str, Any]]:
    """The choices of a file; ValueError if it is none of ours."""
    try:
        content = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"it is no file of choices of format {_FORMAT}")
    choices = content.get("choices")
    if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
        raise ValueError("its choices are damaged")
    return choices


def _known(path: Path) -> list[dict[str, Any]]:
    """The choices of a file that may be replaced: one of ours, an empty one, or none."""
    try:
        data = _read(path)
        return _parse(data) if data else []
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise ValueError(f"{path} is no file of choices, and stays as it is: {error}") from None


def _choose(
    path: Path, choices: list[dict[str, Any]], status: DriverStatus, device: DeviceStatus
) -> Tuning:
    key = _key(status, device)
    found = [one for one in choices if {name: one.get(name) for name in key} == key]
    if not found:
        known = [one for one in choices if one.get("device") == device.name]
        why = "another driver or version of morphogen" if known else "other devices"
        return _passed_over(path, f"it is for {why}; morphogen tune writes a new one")
    try:
        kernels = {int(keys): name for keys, name in found[-1]["kernels"].items()}
        served = {
            (keys, one.name) for one in fitting(device.compute_capability) for keys in one.keys
        }
        unsuitable = [
            f"{name} for {keys} keys"
            for keys, name in kernels.items()
            if (keys, name) not in served
        ]
    except (KeyError, AttributeError, TypeError, ValueError):
        return _passed_over(path, "its choice is damaged")
    if unsuitable:
        return _passed_over(path, f"this device has no {', '.join(unsuitable)}")
    return Tuning(kernels, f"by {path}")


def _passed_over(path: Path, why: str) -> Tuning:
    warnings.warn(f"{path} is passed over: {why}", RuntimeWarning, stacklevel=2)
    return Tuning(reason=f"{path} is passed over: {why}")
