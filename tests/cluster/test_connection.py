"""Frames stay whole, whatever becomes of either end."""

from __future__ import annotations

import pytest

from connections import pair


def test_a_send_fails_when_the_other_end_takes_nothing(tls: dict[str, str]) -> None:
    router, shard = pair(tls)
    with pytest.raises(TimeoutError, match=r"nothing came or went for 0\.01 s"):
        router.send(1, b"", bytes(64 << 20), patience=0.01)
    router.release()
    shard.release()
