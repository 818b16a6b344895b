"""A dataset on a real Argilla server, with what it takes to search it over HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

Json = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """A page of search results: external ids with scores in order, and the number of all matches."""

    total: int
    ids: list[str]
    scores: list[float | None]

    @property
    def all(self) -> set[str]:
        assert self.total == len(self.ids) == len(set(self.ids)), self
        return set(self.ids)


@dataclass
class Searchable:
    """A dataset under test. `api` is the owner's client; `people` are other users' API keys by name."""

    api: httpx.Client
    id: str
    questions: dict[str, str] = field(default_factory=dict)
    people: dict[str, str] = field(default_factory=dict)

    @classmethod
    def create(cls, api: httpx.Client, *, publish: bool = True, min_submitted: int = 1, **columns: Any) -> Searchable:
        """columns: `fields` (name → type), `questions` (name → settings), `metadata` (name → type), `vectors`
        (name → dimensions)."""
        workspace = call(api, "GET", "/me/workspaces")["items"][0]["id"]
        body = {
            "name": f"search-{uuid4().hex}",
            "workspace_id": workspace,
            "allow_extra_metadata": True,
            "distribution": {"strategy": "overlap", "min_submitted": min_submitted},
        }
        dataset = cls(api, call(api, "POST", "/datasets", body)["id"])
        for name, kind in columns.get("fields", {"text": "text"}).items():
            more: Json = {"text": {"use_markdown": False}, "custom": {"template": "{{record}}"}}.get(kind, {})
            settings = {"type": kind, **more}
            dataset._add("fields", name, settings, required=name in ("text", "label"))
        for name, settings in columns.get("questions", {"comment": {"type": "text"}}).items():
            dataset.questions[name] = dataset._add("questions", name, settings, required=True)["id"]
        for name, kind in columns.get("metadata", {}).items():
            dataset._add("metadata-properties", name, {"type": kind}, visible_for_annotators=True)
        for name, dimensions in columns.get("vectors", {}).items():
            body = {"name": name, "title": name, "dimensions": dimensions}
            call(api, "POST", f"/datasets/{dataset.id}/vectors-settings", body)
        if publish:
            call(api, "PUT", f"/datasets/{dataset.id}/publish")
        return dataset

    def _add(self, what: str, name: str, settings: Json, **more: Any) -> Json:
        body = {"name": name, "title": name, "settings": settings, **more}
        created: Json = call(self.api, "POST", f"/datasets/{self.id}/{what}", body)
        return created

    def add_person(self, name: str) -> None:
        """An annotator of the dataset's workspace."""
        workspace = call(self.api, "GET", "/me/workspaces")["items"][0]["id"]
        account = {"username": f"{name}-{self.id[:8]}", "first_name": name, "role": "annotator", "password": "12345678"}
        user = call(self.api, "POST", "/users", account)
        call(self.api, "POST", f"/workspaces/{workspace}/users", {"user_id": user["id"]})
        self.people[name] = user["api_key"]

    def call_as(self, name: str, method: str, path: str, body: Json | None = None) -> Any:
        return call(self.api, method, path, body, api_key=self.people[name])

    def push(self, *records: Json) -> dict[str, str]:
        """Upsert; gives the server's id for each external id."""
        result = {}
        for start in range(0, len(records), 500):
            body = {"items": records[start : start + 500]}
            items = call(self.api, "PUT", f"/datasets/{self.id}/records/bulk", body)["items"]
            result |= {item["external_id"]: item["id"] for item in items}
        return result

    def respond(self, name: str, record_id: str, status: str, **values: Any) -> Json:
        """Upsert the person's response to a record (the server's id)."""
        answered = {question: {"value": value} for question, value in values.items()}
        body = {"items": [{"record_id": record_id, "status": status, "values": answered}]}
        item = self.call_as(name, "POST", "/me/responses/bulk", body)["items"][0]
        assert item.get("error") is None, item
        response: Json = item["item"]
        return response

    def suggestion(self, question: str, value: Any, **more: Any) -> Json:
        return {"question_id": self.questions[question], "value": value, **more}

    def post(
        self,
        text: str | None = None,
        *,
        field: str | None = None,
        vector: Json | None = None,
        filters: list[Json] | None = None,
        sort: list[Json] | None = None,
        person: str | None = None,
        me: bool = False,
        **page: int,
    ) -> httpx.Response:
        body: Json = {}
        if text is not None:
            body["query"] = {"text": {"q": text} | ({"field": field} if field else {})}
        if vector is not None:
            body.setdefault("query", {})["vector"] = vector
        if filters is not None:
            body["filters"] = {"and": filters}
        if sort is not None:
            body["sort"] = sort
        path = f"/datasets/{self.id}/records/search"
        headers = {"X-Argilla-Api-Key": self.people[person]} if person else {}
        path = f"/me{path}" if person or me else path
        return self.api.post(path, json=body, params={"limit": 1000} | page, headers=headers)

    def find(self, text: str | None = None, **options: Any) -> Found:
        response = self.post(text, **options)
        assert response.status_code == 200, response.text
        answer = response.json()
        items = answer["items"]
        ids = [item["record"]["external_id"] for item in items]
        return Found(answer["total"], ids, [item.get("query_score") for item in items])


def call(api: httpx.Client, method: str, path: str, body: Json | None = None, api_key: str | None = None) -> Any:
    """The answer to a request that must succeed, made with the client's API key or another one."""
    response = api.request(method, path, json=body, headers={"X-Argilla-Api-Key": api_key} if api_key else {})
    assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
    return response.json() if response.content else None


# The parts of a query


def record(name: str) -> Json:
    return {"entity": "record", "property": name}


def metadata(name: str) -> Json:
    return {"entity": "metadata", "metadata_property": name}


def suggestion(question: str, name: str | None = "value") -> Json:
    return {"entity": "suggestion", "question": question, "property": name}


def response(question: str) -> Json:
    return {"entity": "response", "question": question}


RESPONSE_STATUS: Json = {"entity": "response", "property": "status"}


def terms(scope: Json, *values: str) -> Json:
    return {"type": "terms", "scope": scope, "values": list(values)}


def between(scope: Json, **bounds: Any) -> Json:
    return {"type": "range", "scope": scope, **bounds}


def ascending(scope: Json) -> Json:
    return {"scope": scope, "order": "asc"}


def descending(scope: Json) -> Json:
    return {"scope": scope, "order": "desc"}
