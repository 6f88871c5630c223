# Made by tools/release/make_stubs.py from the module's source.
"""A lane: a stream of the device, with the buffers of the chunk that is in it."""

from morphogen.engine.cuda._driver import Context
from morphogen.engine.cuda.device_pages import DevicePages

class Lane:
    """A stream and the buffers of the chunk that is in it.

    Parameters
    ----------
    context : Context
    pages : DevicePages
    key_size : int
        Bytes.
    keys : int
        Keys that a chunk may have, until `reserve` is asked for more.
    tiles : int
        The most parts of a page that a kernel makes.
    """

    def __init__(
        self, context: Context, pages: DevicePages, key_size: int, keys: int, tiles: int
    ) -> None: ...

def sums_size(keys: int, stride: int, tiles: int) -> int:
    """Bytes of device memory that a lane takes: a sum for each key, and a counter for each tile."""
