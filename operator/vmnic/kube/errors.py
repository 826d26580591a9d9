"""What the API server may answer instead of what was asked; only statuses that somebody handles are classes."""

from __future__ import annotations

from typing import Any

from ..checked.quantities import read_integer

__all__ = [
    "ApiError",
    "BadNameError",
    "ConflictError",
    "GoneError",
    "InvalidError",
    "NotFoundError",
    "NotLeadingError",
    "TooManyRequestsError",
    "UnreachableError",
    "error_for",
]


_SHOWN = 80
"""Characters of a bad name that its message quotes."""


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(
        self,
        *,
        status: int,
        reason: str,
        message: str,
        causes: tuple[str, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message or reason)
        self.status = status
        """HTTP status; 0 where no answer came."""
        self.reason = reason
        self.message = message
        self.causes = causes
        """What is wrong with which field, where the server says so."""
        self.retry_after_s = retry_after_s
        """Seconds that the server asks to wait."""


class NotFoundError(ApiError):
    """404: no such object or kind."""


class ConflictError(ApiError):
    """409: the object exists already, or is not the one that was read."""


class GoneError(ApiError):
    """410: the version to go on from is too old."""


class InvalidError(ApiError):
    """422: the object breaks a rule, or a JSON Patch's `test` did not hold."""


class TooManyRequestsError(ApiError):
    """429: come back later."""


class UnreachableError(ApiError):
    """No answer: refused, cut or too late. Whether a write took effect is unknown."""


class BadNameError(ApiError):
    """A name that no object can have, so nothing was sent."""

    def __init__(self, what: str, name: str) -> None:
        shown = ascii(name[:_SHOWN]) + ("…" if len(name) > _SHOWN else "")
        super().__init__(status=400, reason="BadName", message=f"{shown} is not {what} that an object can have")


class NotLeadingError(Exception):
    """A leader's write was asked for when the lease had run out; nothing was sent."""


_BY_STATUS: dict[int, type[ApiError]] = {
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
    429: TooManyRequestsError,
}


_LONGEST_RETRY_S = 120
"""A longer Retry-After is not believed: vmnic then uses its own backoff."""


def error_for(status: int, body: Any, retry_after: str | None = None) -> ApiError:
    """Make the error of an answer; `body` is a Status object where the server sent one."""
    described: dict[str, Any] = body if isinstance(body, dict) else {"message": str(body)[:500]}
    causes = (described.get("details") or {}).get("causes") or ()
    return _BY_STATUS.get(status, ApiError)(
        status=status,
        reason=described.get("reason") or str(status),
        message=described.get("message") or "",
        causes=tuple(f"{cause.get('field', '')}: {cause.get('message', '')}" for cause in causes),
        retry_after_s=float(seconds) if (seconds := read_integer(retry_after, 0, _LONGEST_RETRY_S)) is not None else None,
    )
