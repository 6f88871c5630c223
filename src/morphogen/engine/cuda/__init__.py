"""The GPU engine. Only this package knows of CUDA; only `_driver` calls the driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from morphogen.engine.cuda.engine import CudaEngine as CudaEngine

__all__ = ["CudaEngine"]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        # The engine loads the CUDA bindings; the driver's status must come without them.
        if name == "CudaEngine":
            from morphogen.engine.cuda.engine import CudaEngine

            return CudaEngine
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
