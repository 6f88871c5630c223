"""The files of TLS: certificates and private keys, PEM."""

from __future__ import annotations

import ssl
from pathlib import Path


def check_certificates(path: Path) -> None:
    """Refuse a file that does not hold certificates.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, or holds none. The error names the file.
    """
    path.open("rb").close()  # an error of ssl would not name it
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise ValueError(f"{path} is no certificate in PEM") from None


def load_certificate(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    """Load a certificate and its private key.

    Parameters
    ----------
    context : ssl.SSLContext
        Gets both.
    cert, key : pathlib.Path
        PEM files. They may be one file.

    Raises
    ------
    OSError
        If a file cannot be read. It names the file.
    ValueError
        If a file does not hold what it should, the key is encrypted, or it is that of another
        certificate. It names the file.
    """
    key.open("rb").close()  # an error of ssl would not say which
    check_certificates(cert)
    try:
        context.load_cert_chain(cert, key, password=lambda: _refuse(key))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"{key} is not the private key of {cert}") from None
        raise ValueError(f"{key} is no private key in PEM") from None


def _refuse(key: Path) -> str:
    # Else OpenSSL asks the terminal for the password, and a program without one waits for ever.
    raise ValueError(f"{key} is encrypted: the private key must be readable without a password")
