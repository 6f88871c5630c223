# Made by tools/make_stubs.py from the module's source.
from morphogen.engine._driver import Context
from morphogen.engine.device_pages import DevicePages
from morphogen.engine.grid import Grid

class Lane:
    def __init__(self, context: Context, pages: DevicePages, key_size: int, grid: Grid) -> None: ...

def sums_size(stride: int, tiles: int) -> int: ...
