"""Errors that the API server returns.

Only statuses that are handled have a class of their own.
"""

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
"""Characters of a bad name that the message quotes."""


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
        """HTTP status. 0 if there was no answer."""
        self.reason = reason
        self.message = message
        self.causes = causes
        """Faulty fields and what is wrong with them, if the server reports them."""
        self.retry_after_s = retry_after_s
        """Seconds that the server asks to wait."""


class NotFoundError(ApiError):
    """404, the object or kind does not exist."""


class ConflictError(ApiError):
    """409, the object exists already, or has changed since it was read."""


class GoneError(ApiError):
    """410, the resourceVersion to continue from is too old."""


class InvalidError(ApiError):
    """422, the object violates a rule, or a `test` of a JSON Patch failed."""


class TooManyRequestsError(ApiError):
    """429, the server asks to retry later."""


class UnreachableError(ApiError):
    """No answer, because the connection was refused or cut, or timed out.

    Whether a write took effect is unknown.
    """


class BadNameError(ApiError):
    """A name that no object can have.

    Nothing was sent.
    """

    def __init__(self, what: str, name: str) -> None:
        shown = ascii(name[:_SHOWN]) + ("…" if len(name) > _SHOWN else "")
        super().__init__(status=400, reason="BadName", message=f"{shown} is not {what} that an object can have")


class NotLeadingError(Exception):
    """A leader's write was requested after the lease had expired.

    Nothing was sent.
    """


_BY_STATUS: dict[int, type[ApiError]] = {
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
    429: TooManyRequestsError,
}


_LONGEST_RETRY_S = 120
"""A longer Retry-After is ignored, and vmnic's own backoff applies."""


def error_for(status: int, body: Any, retry_after: str | None = None) -> ApiError:
    """Return the error for an answer.

    `body` is a Status object if the server sent one.
    """
    described: dict[str, Any] = body if isinstance(body, dict) else {"message": str(body)[:500]}
    return _BY_STATUS.get(status, ApiError)(
        status=status,
        reason=str(described.get("reason") or status),
        message=str(described.get("message") or ""),
        causes=_causes(described.get("details")),
        # Kubernetes sends seconds. The other form of the header, a date, is ignored.
        retry_after_s=float(seconds) if (seconds := read_integer(retry_after, 0, _LONGEST_RETRY_S)) is not None else None,
    )


def _causes(details: Any) -> tuple[str, ...]:
    """Return the fields that a Status object blames, with what is wrong with each."""
    causes = details.get("causes") if isinstance(details, dict) else None
    if not isinstance(causes, list):
        return ()
    return tuple(f"{cause.get('field', '')}: {cause.get('message', '')}" for cause in causes if isinstance(cause, dict))
