"""The former path of `morphogen.service.process`."""

from morphogen.service.process import ServerProcess as ServerProcess
