"""TLS of a server: which releases, which ciphers, whose certificates, from files in PEM."""

from __future__ import annotations

import ssl
from pathlib import Path

from morphogen.wire.certificates import check_certificates, load_certificate

# Of TLS 1.2: forward secrecy and authenticated encryption. All those of 1.3 are of this kind.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def server_context(cert: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """The rules of a server's TLS.

    Parameters
    ----------
    cert, key : pathlib.Path
        As for `load_certificate`.
    client_ca : pathlib.Path, optional
        Certificates of authorities: only clients with a certificate of theirs are served.

    Returns
    -------
    ssl.SSLContext
        TLS 1.2 or later, with forward secrecy and authenticated encryption only.

    Raises
    ------
    OSError, ValueError
        As from `load_certificate`.
    """
    # Not ssl.create_default_context: the environment could have it log the connections' secrets.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    load_certificate(context, cert, key)
    if client_ca is not None:
        check_certificates(client_ca)
        context.load_verify_locations(cafile=client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
