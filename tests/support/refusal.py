"""The line with which ``morphogen serve`` refuses to start."""

from __future__ import annotations

import pytest

import morphogen.service.run as serving
from morphogen.cli import main
from morphogen.cli.output import USAGE
from morphogen.service.server import Server


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Have a server refuse to start, in this process, and return what it says.

    One that would start fails the test. It would serve on, and the test would wait for it.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(serving, "set_up_logs", lambda *_: None)  # of the whole process
        patched.setattr(Server, "run", lambda *_: pytest.fail("the server started", pytrace=False))
        assert main(["serve", "--port", "0", *map(str, arguments)]) == USAGE
    told = capsys.readouterr().err
    assert told.startswith("morphogen: ")
    assert told.count("\n") == 1
    return told.removeprefix("morphogen: ").removesuffix("\n")
