"""Tells the story to the example for FastAPI, in the product's Python."""

import story  # type: ignore[import-not-found]
from app import app  # type: ignore[import-not-found]
from fastapi.testclient import TestClient

with TestClient(app, client=("198.51.100.7", 50000)) as client:

    def call(method: str, path: str, key: str | None = None, body: object = None) -> story.Answer:
        """One request."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        answer = client.request(method, path, headers=headers, json=body)
        return answer.status_code, dict(answer.headers), answer.json() if answer.content else None

    story.tell(call)
