"""The endpoints of a product's keys."""

import json
from typing import Any
from uuid import UUID

from django.http import HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from keyturn import NotFound, TimeUnit
from product_auth import KeyRequest, keys


def _lacks(request: KeyRequest, permission: str) -> HttpResponse | None:
    if permission in request.keyturn.permissions:
        return None
    return JsonResponse({"error": f"the key lacks the permission {permission!r}"}, status=403)


def _shown_once(key_id: UUID, text: str, expires_at: object, status: int) -> HttpResponse:
    document = {"id": key_id, "text": text, "expires_at": expires_at}
    return JsonResponse(document, status=status, headers={"Cache-Control": "no-store"})


@require_GET
def me(request: KeyRequest) -> HttpResponse:
    """What a key is told about itself; stands for every view of the product."""
    found = request.keyturn
    return JsonResponse({"account": found.account, "permissions": found.permissions})


@require_http_methods(["GET", "POST"])
def collection(request: KeyRequest) -> HttpResponse:
    """List the keys of the caller's account, or create one."""
    return create(request) if request.method == "POST" else list_keys(request)


def create(request: KeyRequest) -> HttpResponse:
    """Create a key for the caller's account: never with more than its own role permits."""
    if refusal := _lacks(request, "write"):
        return refusal
    try:
        wanted: Any = json.loads(request.body)
        name, role, days = wanted["name"], wanted["role"], wanted.get("days", 90)
        ips = wanted.get("allowed_ips")
    except (ValueError, TypeError, KeyError, AttributeError):
        return JsonResponse({"error": "write a JSON object with name and role"}, status=422)
    new = keys().create_api_key(name, request.keyturn.account, role, days, TimeUnit.DAY, ips)
    return _shown_once(new.id, new.text.reveal(), new.expires_at, 201)


def list_keys(request: KeyRequest) -> HttpResponse:
    """The keys of the caller's account; never their texts, which nobody has."""
    found = [
        {
            "id": key.id,
            "name": key.name,
            "ends_with": key.hint,
            "status": key.status,
            "expires_at": key.expires_at,
            "last_used_at": key.last_used_at,
        }
        for key in keys().get_api_keys(user=request.keyturn.account)
    ]
    return JsonResponse(found, safe=False)


@require_POST
def rotate(request: KeyRequest) -> HttpResponse:
    """Issue the successor of the key that comes with the request; asked again, it is the same."""
    rotation = keys().rotate(request.key_text)
    return JsonResponse(
        {"rotation": rotation.id, "state": rotation.state, "fetch_until": rotation.claim_until}
    )


@require_POST
def claim(request: KeyRequest) -> HttpResponse:
    """Fetch that successor, once; the key that comes with the request goes on working."""
    claimed = keys().claim(request.key_text)
    return _shown_once(claimed.key_id, claimed.secret.reveal(), claimed.expires_at, 200)


@require_http_methods(["DELETE"])
def delete(request: KeyRequest, key_id: UUID) -> HttpResponse:
    """End a key of the caller's own account, for ever."""
    if refusal := _lacks(request, "write"):
        return refusal
    key = keys().get_api_key(key_id)
    if key is None or key.account_id != request.keyturn.account_id:
        raise NotFound("key_unknown", "your account has no key of this id")
    keys().delete(key_id)
    return HttpResponse(status=204)


urlpatterns = [
    path("me", me),
    path("keys", collection),
    path("keys/rotate", rotate),
    path("keys/claim", claim),
    path("keys/<uuid:key_id>", delete),
]
