"""Verification of the API server's client certificate, if `--client-ca` names its authority."""

from __future__ import annotations

import pathlib
import ssl

__all__ = ["ClientAuthority", "ClientAuthorityError"]


class ClientAuthorityError(Exception):
    """The file of `--client-ca` cannot be used.

    The message names it and the remedy.
    """


class ClientAuthority:
    """The certificate authority of permitted clients.

    A certificate that is added to the file takes effect at the next handshake. One that is removed stays trusted until a
    restart, because OpenSSL cannot unload it.

    Args:
        path: File with PEM certificates.
        context: The server's TLS context. From now on, it refuses clients without a certificate.

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
            ClientAuthorityError: the file cannot be read. The certificates loaded before stay in effect.
        """
        remedy = "--client-ca needs a file with the PEM certificate of the authority"
        try:
            # Python's ssl accepts PEM text in ASCII only.
            text = self._path.read_text("ascii")
            if text != self._loaded:
                self._context.load_verify_locations(cadata=text)
                self._loaded = text
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ClientAuthorityError(f"{self._path}: {error}: {remedy}") from error
