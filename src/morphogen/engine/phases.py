"""The former path of `morphogen.engine.cuda.phases`."""

from morphogen.engine.cuda.phases import ChunkTimes as ChunkTimes, PhaseTimes as PhaseTimes
