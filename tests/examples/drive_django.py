"""Tells the story to the example for Django, in the product's Python."""

import json
import os

import django  # type: ignore[import-untyped]
import story  # type: ignore[import-not-found]

os.environ["DJANGO_SETTINGS_MODULE"] = "product_settings"
os.environ["DJANGO_SECRET_KEY"] = "only a test"
os.environ["DJANGO_ALLOWED_HOSTS"] = "testserver"
django.setup()

from django.test import Client  # type: ignore[import-untyped]  # noqa: E402  it needs the settings

client = Client(REMOTE_ADDR="198.51.100.7", raise_request_exception=False)


def call(method: str, path: str, key: str | None = None, body: object = None) -> story.Answer:
    """One request."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    data = "" if body is None else json.dumps(body)
    answer = client.generic(method, path, data, "application/json", headers=headers)
    document = json.loads(answer.content) if answer.content else None
    return answer.status_code, {k.lower(): v for k, v in answer.items()}, document


story.tell(call)
