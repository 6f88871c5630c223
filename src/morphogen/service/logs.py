"""The log: one JSON object a line on the standard error."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from typing import Any

from morphogen.checks import printable

_LOGGER = logging.getLogger("morphogen.service")
_LIBRARIES = ("uvicorn", "asyncio", "py.warnings")
_MOST_CHARACTERS = 200
_MOST_WARNINGS = 64  # that are remembered


def log(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Write one event to the log.

    Parameters
    ----------
    event : str
        Its name.
    level : int, optional
        One of logging's.
    **fields
        More fields of the event, as JSON can write them.
    """
    _LOGGER.log(level, event, extra={"fields": fields})


def set_up_logs(level: int = logging.INFO) -> None:
    """Send to the standard error, as JSON, whatever this process would write there otherwise.

    That is this package's log, warnings of libraries and of Python, and errors that nothing caught.

    Parameters
    ----------
    level : int, optional
        The least that is written, one of logging's.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(SeldomFilter())
    _LOGGER.setLevel(level)
    logging.captureWarnings(True)
    libraries = [logging.getLogger(name) for name in _LIBRARIES]
    for logger in libraries:
        logger.setLevel(max(level, logging.WARNING))
    for logger in (_LOGGER, *libraries):
        logger.propagate = False
        logger.handlers = [handler]
    # For the loggers of any other library, where there is no root handler.
    last = logging.StreamHandler(sys.stderr)
    last.setLevel(max(level, logging.WARNING))
    last.setFormatter(JsonFormatter())
    logging.lastResort = last
    sys.unraisablehook = lambda raised: _log_error(raised.exc_type)
    threading.excepthook = lambda raised: _log_error(raised.exc_type)


def _log_error(kind: type[BaseException] | None) -> None:
    # Not the message, which may quote a client.
    log("error", logging.ERROR, error="" if kind is None else kind.__name__)


class SeldomFilter(logging.Filter):
    """Lets a library repeat a warning once a second.

    Whoever connects can have uvicorn complain about a request, as often as they like.
    """

    def __init__(self) -> None:
        super().__init__()
        self._written: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be written."""
        if record.name == _LOGGER.name or record.levelno != logging.WARNING:
            return True
        said = record.name, record.getMessage()
        if 0 <= record.created - self._written.get(said, -1.0) < 1:
            return False
        if len(self._written) >= _MOST_WARNINGS:
            self._written.clear()
        self._written[said] = record.created
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record, without what a message of a library may quote of a client."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
        }
        if record.name == _LOGGER.name:
            line |= {"event": record.getMessage(), **getattr(record, "fields", {})}
        else:
            # What asyncio adds below quotes connections, and a traceback what they sent.
            message = record.getMessage().partition("\n")[0][:_MOST_CHARACTERS]
            line |= {"event": "library", "logger": record.name, "message": message}
        if record.exc_info and record.exc_info[0] is not None:
            # Not the message, which may quote a client.
            line["error"] = record.exc_info[0].__name__
        return json.dumps(printable(line))
