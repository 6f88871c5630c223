"""The former path of `morphogen.service.run`."""

from morphogen.service.run import ServerConfig as ServerConfig, serve as serve
