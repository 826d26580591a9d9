"""Verification of the API server's client certificate, where the cluster's administrator has configured one."""

from __future__ import annotations

import pathlib
import ssl

__all__ = ["ClientAuthority", "ClientAuthorityError"]


class ClientAuthorityError(Exception):
    """The file of `--client-ca` cannot be used; the message names it and the remedy."""


class ClientAuthority:
    """The authority whose certificates clients must have.

    A certificate that is added to the file counts from the next handshake on. One that is removed counts until a restart,
    since OpenSSL forgets none.

    Args:
        path: File with PEM certificates.
        context: The server's context; from now on it refuses clients without a certificate.

    Raises:
        ClientAuthorityError: the file cannot be read.
    """

    def __init__(self, path: pathlib.Path, context: ssl.SSLContext) -> None:
        self._path = path
        self._context = context
        self._loaded: str | None = None
        context.verify_mode = ssl.CERT_REQUIRED
        self.reload()

    def reload(self) -> None:
        """Read the file again if it has changed.

        Raises:
            ClientAuthorityError: the file cannot be read; what was loaded before still counts.
        """
        remedy = "--client-ca needs a file with the PEM certificate of the authority"
        try:
            text = self._path.read_text("ascii")
            if text != self._loaded:
                self._context.load_verify_locations(cadata=text)
                self._loaded = text
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ClientAuthorityError(f"{self._path}: {error}: {remedy}") from error
