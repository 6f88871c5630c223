"""The former path of `morphogen.engine.cuda.grid`."""

from morphogen.engine.cuda.grid import Grid as Grid
