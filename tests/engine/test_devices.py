"""The names of devices: of one, and of several that share the pages."""

from __future__ import annotations

from typing import Any

import pytest

import morphogen as mg
from morphogen.engine.devices import device_candidates, shares_pages
from standin_driver import StandIn


@pytest.mark.parametrize(
    ("device", "ordinals"),
    [
        ("cuda:all", (0, 1, 2)),
        ("cuda:0,cuda:2", (0, 2)),
        (["cuda:2", "cuda:0"], (2, 0)),
        (("cuda:1", "cpu"), (1, None)),
        ("cpu,cpu", (None, None)),
        (["cpu"], (None,)),
    ],
    ids=str,
)
def test_names_of_devices_that_share_the_pages(
    gpu: StandIn, device: str | list[str] | tuple[str, ...], ordinals: tuple[int | None, ...]
) -> None:
    gpu.set(devices=3)
    assert shares_pages(device)
    assert device_candidates(device) == ordinals


@pytest.mark.parametrize(
    ("device", "ordinals"),
    [("auto", (0, 1, None)), ("cuda", (0,)), ("cuda:1", (1,)), ("cpu", (None,))],
)
def test_names_of_one_device_that_has_all_pages(
    gpu: StandIn, device: str, ordinals: tuple[int | None, ...]
) -> None:
    gpu.set(devices=2)
    assert not shares_pages(device)
    assert device_candidates(device) == ordinals


@pytest.mark.parametrize(
    ("device", "error", "message"),
    [
        ([], ValueError, r"^device must name at least one device, not \[\]$"),
        ((), ValueError, r"^device must name at least one device, not \(\)$"),
        (["tpu"], ValueError, r"^each of several devices must be 'cpu' or 'cuda:N', not 'tpu'$"),
        ("cpu,", ValueError, r"^each of several devices must be 'cpu' or 'cuda:N', not ''$"),
        ("cuda:0, cuda:1", ValueError, r"must be 'cpu' or 'cuda:N', not ' cuda:1'$"),
        (["auto", "cpu"], ValueError, r"must be 'cpu' or 'cuda:N', not 'auto'$"),
        (["cuda:all"], ValueError, r"must be 'cpu' or 'cuda:N', not 'cuda:all'$"),
        (["cpu", 1], TypeError, r"^each of several devices must be a str, not int$"),
        ({"cpu"}, TypeError, r"^device must be a str, or a list or tuple of them, not set$"),
        (
            "cuda:1,cpu,cuda:1",
            ValueError,
            r"^device must name each GPU once, not cuda:1 2 times$",
        ),
        ("cuda:9,cuda:0", mg.DeviceUnavailableError, r"^cuda:9 is not there: .* 2 device\(s\)$"),
    ],
    ids=str,
)
def test_names_that_are_refused(
    gpu: StandIn, device: Any, error: type[Exception], message: str
) -> None:
    gpu.set(devices=2)
    with pytest.raises(error, match=message):
        device_candidates(device)


def test_all_gpus_are_those_that_can_be_used(gpu: StandIn) -> None:
    gpu.set(devices=4)
    gpu.set_device(1, compute_capability=75)
    assert device_candidates("cuda:all") == (0, 2, 3)
    with pytest.raises(mg.DeviceUnavailableError, match=r"^cuda:1 cannot be used: .*7\.5"):
        device_candidates(["cuda:0", "cuda:1"])


def test_no_gpu_is_an_error_where_all_are_asked_for(gpu: StandIn) -> None:
    gpu.set(devices=0)
    with pytest.raises(mg.DeviceUnavailableError, match=r"^no GPU can be used: .*no device"):
        device_candidates("cuda:all")
