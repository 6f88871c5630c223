# Made by tools/make_stubs.py from the module's source.
from morphogen.engine._driver import Context
from morphogen.engine.device_pages import DevicePages

class Lane:
    def __init__(
        self, context: Context, pages: DevicePages, key_size: int, keys: int, tiles: int
    ) -> None: ...

def sums_size(keys: int, stride: int, tiles: int) -> int: ...
