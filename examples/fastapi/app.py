"""A product's API on FastAPI, with Keyturn behind it.

Keys are created, listed, rotated, claimed and deleted by whoever holds a key; every other endpoint
asks for one too. Start it with `uvicorn app:app`.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import psycopg
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from keyturn import ApiKey, Client, Misconfigured, NotFound, Refused, TimeUnit, Verdict
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

FORBIDDEN = {"account_held", "ip_not_allowed"}
"""Reasons of `verify` that are no matter of the key itself; all others are a 401."""

STILL_ROTATES = {None, "expired", "retired"}
"""A key that has just ended may still ask for the successor that was made for it."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for all threads; it connects at its first use."""
    with Client(
        os.environ["KEYTURN_DATABASE_URL"],
        secrets_dir=os.environ["KEYTURN_SECRETS_DIR"],
        actor="example-api",
    ) as keys:
        app.state.keys = keys
        yield


app = FastAPI(title="A product with API keys", lifespan=lifespan)


# What goes wrong


@app.exception_handler(psycopg.Error)
@app.exception_handler(SQLAlchemyError)
@app.exception_handler(Misconfigured)
async def unavailable(request: Request, error: Exception) -> Response:
    """Nobody can say whether a key works: that is a no, and worth another try."""
    return JSONResponse({"error": "unavailable"}, 503, headers={"Retry-After": "5"})


@app.exception_handler(Refused)
async def refused(request: Request, error: Refused) -> Response:
    """What Keyturn's rules do not allow; the message says how to mend it."""
    status = 404 if isinstance(error, NotFound) else 409
    if error.code == "too_many_rotations":
        status = 429
    return JSONResponse({"error": error.code, "message": error.message}, status)


# Who may come in


def client(request: Request) -> Client:
    """The library."""
    found: Client = request.app.state.keys
    return found


Keys = Annotated[Client, Depends(client)]


def bearer(request: Request) -> str:
    """The text of the key that came with the request."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not text:
        raise HTTPException(401, "missing", headers={"WWW-Authenticate": "Bearer"})
    return text


Text = Annotated[str, Depends(bearer)]


def look(request: Request, keys: Keys, text: Text) -> Verdict:
    """What Keyturn says of the key. Behind a proxy, have uvicorn read the client's address:
    `--proxy-headers --forwarded-allow-ips`."""
    return keys.verify(text, ip=request.client.host if request.client else None)


def no(verdict: Verdict) -> HTTPException:
    """The refusal, with its reason."""
    if verdict.reason in FORBIDDEN:
        return HTTPException(403, verdict.reason)
    return HTTPException(401, verdict.reason, headers={"WWW-Authenticate": "Bearer"})


def holder(verdict: Annotated[Verdict, Depends(look)]) -> Verdict:
    """The auth dependency: whose key it is, and what it may do."""
    if not verdict:
        raise no(verdict)
    return verdict


def may(permission: str) -> Callable[[Verdict], Verdict]:
    """The same for those endpoints that need a permission."""

    def check(verdict: Annotated[Verdict, Depends(holder)]) -> Verdict:
        if permission not in verdict.permissions:
            raise HTTPException(403, f"the key lacks the permission {permission!r}")
        return verdict

    return check


Holder = Annotated[Verdict, Depends(holder)]
Writer = Annotated[Verdict, Depends(may("write"))]


def rotating(verdict: Annotated[Verdict, Depends(look)], text: Text) -> str:
    """The text of a key that may fetch its successor."""
    if verdict.reason not in STILL_ROTATES:
        raise no(verdict)
    return text


Old = Annotated[str, Depends(rotating)]


# The endpoints


class Wanted(BaseModel):
    """A key to be created."""

    name: str
    role: str
    days: int = 90
    allowed_ips: list[str] | None = None


class Shown(BaseModel):
    """A key whose text is shown this once."""

    id: UUID
    text: str
    expires_at: datetime


@app.get("/me")
def me(verdict: Holder) -> dict[str, Any]:
    """What a key is told about itself; stands for every endpoint of the product."""
    return {"account": verdict.account, "permissions": verdict.permissions}


@app.post("/keys", status_code=201)
def create(wanted: Wanted, verdict: Writer, keys: Keys, response: Response) -> Shown:
    """Create a key for the caller's account: never with more than its own role permits."""
    new = keys.create_api_key(
        wanted.name, verdict.account, wanted.role, wanted.days, TimeUnit.DAY, wanted.allowed_ips
    )
    response.headers["Cache-Control"] = "no-store"
    return Shown(id=new.id, text=new.text.reveal(), expires_at=new.expires_at)


@app.get("/keys")
def list_keys(verdict: Holder, keys: Keys) -> list[dict[str, Any]]:
    """The keys of the caller's account; never their texts, which nobody has."""
    return [
        {
            "id": key.id,
            "name": key.name,
            "ends_with": key.hint,
            "status": key.status,
            "expires_at": key.expires_at,
            "last_used_at": key.last_used_at,
        }
        for key in keys.get_api_keys(user=verdict.account)
    ]


@app.post("/keys/rotate")
def rotate(old: Old, keys: Keys) -> dict[str, Any]:
    """Issue the successor of the key that comes with the request; asked again, it is the same."""
    rotation = keys.rotate(old)
    return {"rotation": rotation.id, "state": rotation.state, "fetch_until": rotation.claim_until}


@app.post("/keys/claim")
def claim(old: Old, keys: Keys, response: Response) -> Shown:
    """Fetch that successor, once; the key that comes with the request goes on working."""
    claimed = keys.claim(old)
    response.headers["Cache-Control"] = "no-store"
    return Shown(id=claimed.key_id, text=claimed.secret.reveal(), expires_at=claimed.expires_at)


@app.delete("/keys/{key_id}", status_code=204)
def delete(key_id: UUID, verdict: Writer, keys: Keys) -> None:
    """End a key of the caller's own account, for ever."""
    key: ApiKey | None = keys.get_api_key(key_id)
    if key is None or key.account_id != verdict.account_id:
        raise NotFound("key_unknown", "your account has no key of this id")
    keys.delete(key_id)
