"""SCIM requests as clients really send them, in every form in which they are relayed."""

import json
from typing import Any

import pytest

from models.events import AccountEvent, dedup_key
from tests.worker.intake.messages import FIXTURES, read, said
from worker.intake.providers import PROVIDERS, http_text, parse

PATCH_OP = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
ADA = {":method": "PATCH", ":path": "/scim/v2/Users/u-42"}


def results(headers: dict[str, str], message: Any) -> list[str]:
    return said(read(PROVIDERS["scim"], message, headers))


def patch(*operations: Any) -> Any:
    return {"schemas": [PATCH_OP], "Operations": list(operations)}


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("scim-patch-enveloped", ["disabled transition opaque:u-42"]),
        ("scim-put-user", ["disabled state opaque:u-42 external_id:hr-7 email:ada@example.com"]),
        ("scim-bulk",
         ["disabled transition opaque:u-1", "deleted transition opaque:u-2", "none"]),
    ],
)  # fmt: skip
def test_what_a_message_means(name: str, meaning: list[str]) -> None:
    assert results({}, (FIXTURES / f"{name}.json").read_bytes()) == meaning


DISABLED, ENABLED = "disabled transition opaque:u-42", "enabled transition opaque:u-42"


@pytest.mark.parametrize(
    ("operations", "meaning"),
    [
        ([{"op": "Replace", "path": "active", "value": "False"}], DISABLED),
        ([{"op": "Replace", "path": "active", "value": "True"}], ENABLED),
        ([{"op": "replace", "path": "active", "value": False}], DISABLED),
        ([{"op": "add", "path": "active", "value": False}], DISABLED),
        ([{"OP": "REPLACE", "Path": "Active", "Value": "fAlSe"}], DISABLED),
        ([{"op": "replace", "value": {"active": False}}], DISABLED),
        ([{"op": "replace", "value": {"Active": "true", "displayName": "Ada"}}], ENABLED),
        ([{"op": "replace", "value": {USER + ":active": False}}], DISABLED),
        ([{"op": "replace", "value": {USER: {"active": False}}}], DISABLED),
        ([{"op": "replace", "path": USER, "value": {"active": False}}], DISABLED),
        ([{"op": "replace", "path": USER + ":active", "value": False}], DISABLED),
        ([{"op": "replace", "path": "active", "value": [{"value": "False"}]}], DISABLED),
        ([{"op": "replace", "path": "active", "value": {"active": False}}], DISABLED),
        ([{"op": "replace", "path": "displayName", "value": "x"},
          {"op": "replace", "path": "active", "value": False}], DISABLED),
        ([{"op": "replace", "path": "active", "value": False},
          {"op": "replace", "path": "active", "value": True}], ENABLED),
        ([{"op": "replace", "value": [{"active": False}]}], DISABLED),
        ([{"op": "remove", "path": "active"}], "none hint opaque:u-42"),
        ([{"op": "replace", "path": "externalId", "value": "False"}], "none"),
        ([{"op": "replace", "path": 'emails[type eq "work"].value', "value": "a@b.example"}],
         "none"),
        ([{"op": "replace", "value": {"displayName": "active"}}], "none"),
        ([{"op": "add", "path": "members", "value": []}], "none"),
        ([], "none"),
        ([{"op": "replace", "path": "active", "value": "no"}], "bad_active"),
        ([{"op": "replace", "path": "active", "value": 0}], "bad_active"),
        ([{"op": "replace", "path": "active", "value": None}], "bad_active"),
        ([{"op": "replace", "path": "active"}], "bad_active"),
        ([{"op": "replace", "path": "active", "value": [False, True]}], "bad_active"),
        ([{"op": "replace", "path": 5, "value": False}], "wrong_type"),
        (["replace"], "not_an_object"),
        ([{"op": "replace", "path": "active", "value": False, "VALUE": True}], "duplicate_members"),
    ],
)  # fmt: skip
def test_patches(operations: list[Any], meaning: str) -> None:
    assert results(ADA, patch(*operations)) == [meaning]


@pytest.mark.parametrize(
    ("method", "path", "body", "meaning"),
    [
        ("PUT", "/Users/u-42", {"active": False}, "disabled state opaque:u-42"),
        ("PUT", "/Users/u-42", {"active": "True"}, "enabled state opaque:u-42"),
        ("PUT", "/Users/u-42", {"displayName": "Ada"}, "none"),
        ("PUT", "/Users/u-42", {"displayName": "Ada", "active": None}, "none"),
        ("POST", "/Users", {"userName": "ada@example.com", "active": True}, "none"),
        ("POST", "/Users", {"userName": "ada@example.com", "active": False},
         "disabled state email:ada@example.com"),
        ("DELETE", "/scim/v2/Users/u-42", {}, "deleted transition opaque:u-42"),
        ("delete", "https://api.acme.example/v1/Users/a%2Fb?x=y", {},
         "deleted transition opaque:a/b"),
        ("DELETE", "/users/u-42/", {}, "deleted transition opaque:u-42"),
        ("DELETE", "/Groups/u-42", {}, "none"),
        ("PATCH", "/Groups/g", patch({"op": "replace", "path": "active", "value": False}), "none"),
        ("GET", "/Users/u-42", {}, "none"),
        ("DELETE", "/Users", {}, "missing_account"),
        ("PATCH", "/v1/Users/u-42", {"schemas": ["urn:scim:schemas:core:1.0"], "active": False},
         DISABLED),
        ("PATCH", "/v1/Users/u-42", {"active": "False"}, DISABLED),
        ("BREW", "/Users/u-42", {}, "unknown_type"),
        ("DELETE", "/Users/" + "x" * 600, {}, "too_long"),
    ],
)  # fmt: skip
def test_methods_and_paths(method: str, path: str, body: Any, meaning: str) -> None:
    assert results({":method": method, ":path": path}, body) == [meaning]
    assert results({}, {"method": method, "path": path, "body": body}) == [meaning]
    assert results({}, {"method": method, "url": path, "body": json.dumps(body)}) == [meaning]
    if method != "BREW":
        request = f"{method.upper()} {path} HTTP/1.1\r\nHost: x\r\n\r\n{json.dumps(body)}"
        assert results({}, request.encode()) == [meaning]


def test_a_delete_without_a_body() -> None:
    assert results({":method": "DELETE", ":path": "/Users/u-42"}, b"") == [
        "deleted transition opaque:u-42"
    ]
    whole = http_text.parsed((FIXTURES / "scim-delete.http").read_bytes())
    assert whole is not None
    assert results(*whole) == ["deleted transition opaque:u-42"]
    assert results({}, b"") == ["empty_body"]


def test_a_body_that_is_null_is_none() -> None:
    assert results({":method": "DELETE", ":path": "/Users/u-42"}, b"null") == [
        "deleted transition opaque:u-42"
    ]
    assert results({":method": "DELETE"}, b"null") == ["not_an_object"]


OFF = patch({"op": "replace", "path": "active", "value": False})


@pytest.mark.parametrize(
    "message",
    [
        {"Method": "PATCH", "Path": "/Users/u-42", "Body": OFF},
        {"httpMethod": "PATCH", "path": "/Users/u-42", "body": json.dumps(OFF), "headers": None},
        {"method": "POST", "path": "/Users/u-42", "body": OFF,
         "headers": {"X-HTTP-Method-Override": "PATCH"}},
        {"schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"],
         "operations": [{"Method": "PATCH", "Path": "/Users/u-42", "Data": OFF}]},
        {"OPERATIONS": [{"method": "PATCH", "path": "/Users/u-42", "data": OFF}]},
    ],
)  # fmt: skip
def test_names_have_no_case(message: Any) -> None:
    assert results({}, message) == [DISABLED]


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-method": "PATCH", "x-forwarded-uri": "/Users/u-42"},
        {"x-original-uri": "/Users/u-42"},
        {":method": "POST", "x-http-method-override": "PATCH", ":path": "/Users/u-42"},
    ],
)
def test_what_a_proxy_noted(headers: dict[str, str]) -> None:
    body = patch({"op": "replace", "path": "active", "value": False})
    assert results(headers, body) == [DISABLED]


def test_without_its_path_a_patch_names_nobody() -> None:
    assert results({}, patch({"op": "Replace", "path": "active", "value": "False"})) == [
        "missing_account"
    ]
    assert results({}, patch({"op": "Replace", "path": "displayName", "value": "A"})) == ["none"]


def test_an_id_that_is_a_uuid_may_be_an_account_of_ours() -> None:
    id = "3F0C5E0A-7F4E-4F3B-9C5D-000000000042"
    assert results({":method": "DELETE", ":path": f"/Users/{id}"}, b"") == [
        f"deleted transition opaque:{id} account:{id.lower()}"
    ]


def test_a_version_1_user() -> None:
    user = {
        "schemas": ["urn:scim:schemas:core:1.0"],
        "id": "u-42",
        "userName": "ada",
        "active": False,
    }
    assert results({}, user) == ["disabled state opaque:u-42"]
    group = {**user, "meta": {"resourceType": "Group"}}
    assert results({}, group) == ["none"]


def test_requests_have_no_id_of_their_own() -> None:
    [event] = parse("scim", {":method": "DELETE", ":path": "/Users/u-42"}, b"")
    assert isinstance(event, AccountEvent)
    assert dedup_key(event, "7-0") == "delivery:7-0"


def test_the_bad_members_of_a_bulk_request_do_not_take_the_good_ones_with_them() -> None:
    message = {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"],
        "Operations": [
            {"method": "DELETE", "path": "/Users/u-42"},
            {"method": "DELETE"},
            {"path": "/Users/u-1"},
            5,
            {"method": "PATCH", "path": "/Users/u-1", "data": []},
            {"method": "PATCH", "path": "/Users/u-1", "data": "{"},
        ],
    }
    assert results({}, message) == [
        "deleted transition opaque:u-42", "missing_account", "wrong_type", "not_an_object", "none",
        "not_json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        (b"# a note\n\nPATCH /Users/1\nX-A: 1\nx-a: 2\n\nbody\n\nmore",
         ({":method": "PATCH", ":path": "/Users/1", "x-a": "1"}, b"body\n\nmore")),
        (b"GET /a HTTP/1.1", ({":method": "GET", ":path": "/a"}, b"")),
        (b"POST /a HTTP/2\r\nA:b\r\n\r\n{}", ({":method": "POST", ":path": "/a", "a": "b"}, b"{}")),
        (b'{"method": "GET"}', None),
        (b"GETTING /a HTTP/1.1\n\n", None),
        (b"", None),
        (b"get /a", None),
    ],
)  # fmt: skip
def test_requests_as_text(text: bytes, parsed: Any) -> None:
    assert http_text.parsed(text) == parsed
