# Made by tools/make_stubs.py from the module's source.
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

MAX_PAGES: int

def gen(
    index: SupportsIndex, num_pages: SupportsIndex, *, entropy: Buffer | None = None
) -> tuple[bytes, bytes]: ...
def key_size(num_pages: SupportsIndex) -> int: ...
def eval_full(
    key: Buffer, num_pages: SupportsIndex, *, instruction_set: str | None = None
) -> npt.NDArray[np.uint8]: ...
def eval_at(key: Buffer, index: SupportsIndex, num_pages: SupportsIndex) -> int: ...
def parse_key(key: Buffer) -> tuple[bytes, int, int]: ...
