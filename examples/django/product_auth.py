"""The middleware: nobody gets to a view without a key that works.

Keyturn keeps its own connections: Django's database settings have nothing to do with it.
"""

import functools
import os
from collections.abc import Callable

import psycopg
from django.http import HttpRequest, HttpResponse, JsonResponse
from keyturn import Client, Misconfigured, NotFound, Refused, Verdict
from sqlalchemy.exc import SQLAlchemyError

FORBIDDEN = {"account_held", "ip_not_allowed"}
"""Reasons of `verify` that are no matter of the key itself; all others are a 401."""

STILL_ROTATES = {None, "expired", "retired"}
"""A key that has just ended may still ask for the successor that was made for it."""

ROTATING = {"/keys/rotate", "/keys/claim"}


@functools.cache
def keys() -> Client:
    """One client for all threads of this process; it connects at its first use."""
    return Client(
        os.environ["KEYTURN_DATABASE_URL"],
        secrets_dir=os.environ["KEYTURN_SECRETS_DIR"],
        actor="example-site",
    )


class KeyRequest(HttpRequest):
    """A request that came with a key: what views find on it."""

    keyturn: Verdict
    key_text: str


class KeyturnMiddleware:
    """Lets a request pass if its key works, with `request.keyturn`: whose it is, what it may do."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        try:
            return self._let_in(request) or self.get_response(request)
        except (psycopg.Error, SQLAlchemyError, Misconfigured):
            return _unavailable()

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """What Keyturn raised in a view; all else is the product's own."""
        if isinstance(error, Refused):
            status = 404 if isinstance(error, NotFound) else 409
            if error.code == "too_many_rotations":
                status = 429
            return JsonResponse({"error": error.code, "message": error.message}, status=status)
        if isinstance(error, psycopg.Error | SQLAlchemyError | Misconfigured):
            return _unavailable()
        return None

    def _let_in(self, request: HttpRequest) -> HttpResponse | None:
        """The refusal, or None. Behind a proxy, take the address from what your proxy sets."""
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not text:
            return _refusal("missing")
        verdict = keys().verify(text, ip=request.META.get("REMOTE_ADDR"))
        rotates = request.path in ROTATING and verdict.reason in STILL_ROTATES
        if not verdict and not rotates:
            return _refusal(verdict.reason or "")
        request.keyturn, request.key_text = verdict, text  # type: ignore[attr-defined]
        return None


def _refusal(reason: str) -> HttpResponse:
    if reason in FORBIDDEN:
        return JsonResponse({"error": reason}, status=403)
    return JsonResponse({"error": reason}, status=401, headers={"WWW-Authenticate": "Bearer"})


def _unavailable() -> HttpResponse:
    """Nobody can say whether a key works: that is a no, and worth another try."""
    return JsonResponse({"error": "unavailable"}, status=503, headers={"Retry-After": "5"})
