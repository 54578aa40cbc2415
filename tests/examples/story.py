"""What both examples must do, told to either by its own client. Runs in the product's Python."""

import logging
import sys
from collections.abc import Callable
from typing import Any

Answer = tuple[int, dict[str, str], Any]
Call = Callable[..., Answer]
"""`call(method, path, key=None, body=None)`: status, headers in small letters, document."""


def expect(got: Answer, status: int, reason: str | None = None) -> Any:
    """The document of an answer that must have this status, and name this reason."""
    assert got[0] == status, got
    if reason is not None:
        assert reason in str(got[2]), got
    return got[2]


def whole(call: Call, member: str, viewer: str, stranger_id: str) -> None:
    """A key's life, by whoever holds it."""
    _auth(call, member)
    new = expect(call("POST", "/keys", member, {"name": "ci", "role": "viewer", "days": 7}), 201)
    assert call("POST", "/keys", member, {"name": "b", "role": "viewer"})[1]["cache-control"] == (
        "no-store"
    )
    listed = expect(call("GET", "/keys", new["text"]), 200)
    assert {"ci", "b", "first"} <= {one["name"] for one in listed}
    assert new["text"] not in str(listed)
    assert stranger_id not in {one["id"] for one in listed}
    expect(call("POST", "/keys", viewer, {"name": "x", "role": "viewer"}), 403, "write")
    expect(call("POST", "/keys", member, {"name": "x", "role": "admin"}), 409, "role_not_allowed")
    assert call("POST", "/keys", member, {"role": "viewer"})[0] == 422
    _rotation(call, new["text"])
    expect(call("DELETE", f"/keys/{new['id']}", viewer), 403)
    expect(call("DELETE", f"/keys/{stranger_id}", member), 404, "key_unknown")
    assert call("DELETE", f"/keys/{new['id']}", member)[0] == 204
    expect(call("GET", "/me", new["text"]), 401, "deleted")
    expect(call("POST", "/keys/rotate", new["text"]), 401, "deleted")
    _too_often(call, member)


def _auth(call: Call, member: str) -> None:
    assert expect(call("GET", "/me", member), 200)["permissions"] == ["read", "write"]
    nobody = call("GET", "/me")
    expect(nobody, 401)
    assert nobody[1]["www-authenticate"] == "Bearer"
    expect(call("GET", "/me", member[:-1]), 401, "malformed")
    expect(call("GET", "/me", "kt_" + "0" * 33), 401, "malformed")
    fenced = {"name": "fenced", "role": "viewer", "allowed_ips": ["192.0.2.0/24"]}
    far = expect(call("POST", "/keys", member, fenced), 201)["text"]
    expect(call("GET", "/me", far), 403, "ip_not_allowed")
    expect(call("POST", "/keys/rotate", far), 403, "ip_not_allowed")


def _rotation(call: Call, old: str) -> None:
    first = expect(call("POST", "/keys/rotate", old), 200)
    assert expect(call("POST", "/keys/rotate", old), 200)["rotation"] == first["rotation"]
    claimed = expect(call("POST", "/keys/claim", old), 200)
    for text in (old, claimed["text"]):
        assert call("GET", "/me", text)[0] == 200
    expect(call("POST", "/keys/claim", old), 409, "already_claimed")
    expect(call("POST", "/keys/claim", claimed["text"]), 409, "no_rotation")


def _too_often(call: Call, member: str) -> None:
    """Three new rotations of a key in a day, and no more; the key itself works on."""
    old = expect(call("POST", "/keys", member, {"name": "often", "role": "viewer"}), 201)["text"]
    for _ in range(3):
        expect(call("POST", "/keys/rotate", old), 200)
        claimed = expect(call("POST", "/keys/claim", old), 200)
        assert call("DELETE", f"/keys/{claimed['id']}", member)[0] == 204
    refused = expect(call("POST", "/keys/rotate", old), 429, "too_many_rotations")
    assert "it can be again from" in refused["message"]
    assert old not in str(refused)
    assert call("GET", "/me", old)[0] == 200


def database_away(call: Call, member: str) -> None:
    """Where the database does not answer, nobody comes in, and nothing breaks."""
    paths = [("GET", "/me"), ("GET", "/keys"), ("POST", "/keys/rotate"), ("POST", "/keys/claim")]
    for method, path in paths:
        got = call(method, path, member)
        expect(got, 503, "unavailable")
        assert got[1]["retry-after"] == "5"


def tell(call: Call) -> None:
    """Run what the command line names, with its arguments; everything is logged, and no key."""
    story, *arguments = sys.argv[1:]
    stories: dict[str, Callable[..., None]] = {"whole": whole, "away": database_away}
    logged, texts = _listening(), set[str]()

    def noted(method: str, path: str, key: str | None = None, body: object = None) -> Answer:
        answer = call(method, path, key, body)
        shown = answer[2].get("text") if isinstance(answer[2], dict) else None
        texts.update(text for text in (key, shown) if text is not None and len(text) > 20)
        return answer

    stories[story](noted, *arguments)
    assert logged, "nothing was logged: this proves nothing"
    assert texts
    for line in logged:
        for text in texts:
            # Of a text that is not written whole its middle is as bad: the end is on show anyway.
            assert text not in line
            assert text[3:-8] not in line
    sys.stdout.write("told\n")


def _listening() -> list[str]:
    """What any part of the product logs from now on, at every level, with what was raised."""
    logged = list[str]()

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(self.format(record))

    handler = Kept(logging.DEBUG)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s %(args)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    for name in list(logging.root.manager.loggerDict):
        found = logging.getLogger(name)
        found.setLevel(logging.DEBUG)
        found.disabled = False
        found.propagate = True
    return logged
