"""A served table that the devices of a machine share, from one epoch to the next."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import morphogen as mg
from device_shares import AFTER, ARRAY, INDICES, assert_answers
from morphogen.engine.devices.across import DevicesEngine
from morphogen.service.opening import Prepared, ProcessOpener
from standin_driver import StandIn

NO_FILE: Any = None  # this opener reads none


def opened() -> mg.Engine:
    opener = ProcessOpener("cuda:all")
    opener.check()
    return opener.open(NO_FILE, mg.PageMatrix(ARRAY), None).engine


def following(engine: mg.Engine, changed: list[int] | None) -> mg.Engine:
    indices = None if changed is None else np.array(changed)
    pages = mg.PageMatrix(AFTER, epoch=1)
    prepared = Prepared(pages, None, None, None, None, changed=indices)
    return ProcessOpener("cuda:all").open_beside(prepared, engine).engine


@pytest.mark.parametrize("changed", [INDICES, None], ids=["some pages", "all pages"])
def test_both_epochs_are_answered_side_by_side(gpu: StandIn, changed: list[int] | None) -> None:
    gpu.set(devices=2)
    with opened() as engine, following(engine, changed) as after:
        assert isinstance(after, DevicesEngine)
        assert after.device == engine.device == "cuda:0,cuda:1"
        assert_answers(engine, ARRAY)
        assert_answers(after, AFTER)
        # Where only some pages change, both share those on the devices.
        assert (sum(gpu.used()) > 2 * ARRAY.nbytes) == (changed is None)


def test_a_server_is_not_ready_once_a_device_is_lost(gpu: StandIn) -> None:
    gpu.set(devices=2)
    with opened() as engine, mg.MicroBatcher(engine) as batcher:
        batcher.check_usable()
        gpu.lose(1)
        query = mg.make_query([3], len(ARRAY))[0]
        with pytest.raises(mg.DeviceError, match=r"^cuda:1: "):
            batcher.submit(query).result()
        with pytest.raises(mg.EngineClosedError, match=r"^cuda:1: .* its device failed"):
            batcher.check_usable()
    gpu.reset()
