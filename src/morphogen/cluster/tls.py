"""TLS of the connections that passes take, by the certificates that Ray has."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from morphogen.cluster.security import TLS_FILES, uses_tls


@dataclass(frozen=True, slots=True)
class Tls:
    """The TLS of one end.

    Attributes
    ----------
    context : ssl.SSLContext
        Its rules.
    certificate : bytes
        Its own, as DER.
    of_shard : bool
        Whether it is that of a shard's process.
    """

    context: ssl.SSLContext
    certificate: bytes
    of_shard: bool


def tls_of_ray(environment: Mapping[str, str] = os.environ, *, of_shard: bool) -> Tls | None:
    """The TLS of the router, or of a shard's process.

    Parameters
    ----------
    environment : mapping, optional
        By default this process's own, from which Ray takes its settings.
    of_shard : bool
        Whether it is that of a shard's process, which takes routers with a certificate alone.

    Returns
    -------
    Tls or None
        With Ray's own certificates; None if it uses no TLS.

    Raises
    ------
    OSError, ValueError
        If a file cannot be read, or is no certificate.
    """
    if not uses_tls(environment):
        return None
    certificate, key, authority = (environment[name] for name in TLS_FILES)
    # Not ssl.create_default_context: the environment could have it log the connections' secrets.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if of_shard else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # who has the shard's secret and certificate is the shard
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as gRPC has it, for Ray
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority)
    text = Path(certificate).read_text(encoding="ascii", errors="replace")
    first, end, _ = text.partition(ssl.PEM_FOOTER)
    own = first[first.find(ssl.PEM_HEADER) :] + end
    return Tls(context, ssl.PEM_cert_to_DER_cert(own), of_shard)
