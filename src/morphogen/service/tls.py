"""The files of a server's TLS."""

from morphogen.wire.certificates import load_certificate as load_certificate
