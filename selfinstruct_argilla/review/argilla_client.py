"""Argilla as this package needs it; the one module that imports `argilla`.

The SDK authenticates; reading and writing go through its HTTP client to Argilla's REST API, because the SDK's records
hide discards, drop the times of responses, stop early in silence when a page fails, and send every key of a record
again when one changes. Each failure becomes a ReviewUnavailableError (after own retries: nothing said about the
request) or a ReviewRefusedError (the server answered, and means it).
"""

from __future__ import annotations

import json
import random
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import ValidationError

from ..errors import ReviewRefusedError, ReviewUnavailableError

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # argilla 2.8 is written for an older pydantic
    import argilla as rg
    from argilla._exceptions import ArgillaAPIError, ArgillaCredentialsError, ArgillaError

_PAGE = 1000  # Argilla's largest
_BULK = 500  # Argilla's largest
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_CONNECT_SECONDS = 12.0  # a server that is not there is reported within 30 seconds
_START_AGAIN = (
    "Check that Argilla runs at that address (a local one: sia server start), then run the same command again."
)
_ADDRESS = "Check review.argilla.api_url in the recipe (or ARGILLA_API_URL)."


class RequestRefusedError(ReviewRefusedError):
    """Argilla understood one request and refuses it; `status` is the HTTP status, `detail` Argilla's reason."""

    def __init__(self, message: str, status: int, detail: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.detail = detail


@dataclass
class Upserted:
    """What became of a bulk upsert: server ids by external id, and Argilla's reasons for those it refused."""

    server_ids: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def connect(api_url: str, api_key: str, *, timeout_seconds: float = 60.0, patience: float = 120.0) -> ArgillaClient:
    """A client whose key was checked.

    timeout_seconds: for one request. patience: how long transient failures of one request are retried, in seconds.
    Raises ReviewUnavailableError where nobody answers, ReviewRefusedError where the key or the address is wrong.
    """

    def login() -> rg.Argilla:
        sdk = rg.Argilla.__new__(rg.Argilla)
        try:
            sdk.__init__(api_url=api_url, api_key=api_key, timeout=timeout_seconds, retries=0)
        except BaseException:
            if hasattr(sdk, "http_client"):
                sdk.http_client.close()  # the SDK asks who we are in its constructor, and leaves this open
            raise
        return sdk

    sdk = _patiently(login, api_url, min(patience, _CONNECT_SECONDS))
    return ArgillaClient(sdk.http_client, api_url, patience=patience)


class ArgillaClient:
    """Requests to one Argilla server with one person's key; make it with `connect`."""

    def __init__(self, http: httpx.Client, api_url: str, *, patience: float) -> None:
        self.api_url = api_url.rstrip("/")
        self._http = http
        self._patience = patience

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> ArgillaClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # workspaces and people -----------------------------------------------------------------------

    def workspace_id(self, name: str) -> str:
        """The id of a workspace that the user can see. Raises ReviewRefusedError where there is none."""
        workspaces = {item["name"]: str(item["id"]) for item in self.get("me/workspaces")["items"]}
        if name not in workspaces:
            there = ", ".join(sorted(workspaces)) or "none"
            raise ReviewRefusedError(
                f"Argilla at {self.api_url} has no workspace {name!r} for this user (there is: {there})",
                hint="Create it in Argilla under Settings, or name another under review.argilla.workspace.",
            )
        return workspaces[name]

    def usernames(self, workspace_id: str) -> dict[str, str]:
        """User names by id, as far as this user may know them: all for an owner, the workspace's for an admin."""
        for path in ("users", f"workspaces/{workspace_id}/users"):
            try:
                return {str(user["id"]): str(user["username"]) for user in self.get(path)["items"]}
            except RequestRefusedError as error:
                if error.status != 403:
                    raise
        return {}

    def judges(self, workspace_id: str) -> dict[str, str]:
        """Names by id of those who can open the workspace's records: its members, and owners; empty where this user may
        not know them."""
        try:
            members = self.get(f"workspaces/{workspace_id}/users")["items"]
        except RequestRefusedError as error:
            if error.status != 403:
                raise
            return {}
        try:
            members += [user for user in self.get("users")["items"] if user["role"] == "owner"]
        except RequestRefusedError as error:
            if error.status != 403:
                raise
        return {str(user["id"]): str(user["username"]) for user in members}

    # datasets ------------------------------------------------------------------------------------

    def dataset(self, dataset_id: str) -> dict[str, Any] | None:
        """A dataset as Argilla describes it; None where it is not there."""
        return self._found(f"datasets/{dataset_id}")

    def dataset_named(self, name: str, workspace_id: str) -> dict[str, Any] | None:
        for dataset in self.get("me/datasets", workspace_id=workspace_id)["items"]:
            if dataset["name"] == name and str(dataset["workspace_id"]) == workspace_id:
                return dict(dataset)
        return None

    def progress(self, dataset_id: str) -> dict[str, int]:
        """Records in all, completed (enough submitted responses) and pending."""
        progress = self.get(f"datasets/{dataset_id}/progress")
        return {name: int(progress.get(name) or 0) for name in ("total", "completed", "pending")}

    def activity(self, dataset_id: str) -> tuple[object, ...]:
        """A value that is another one after any response, discard, deletion of a response, or change in the number of
        records; two small requests. What an admin writes through the API, or an account's removal, does not show."""
        dataset = self.get(f"datasets/{dataset_id}")
        return (dataset["last_activity_at"], *self.progress(dataset_id).values())

    def questions(self, dataset_id: str) -> list[dict[str, Any]]:
        return list(self.get(f"datasets/{dataset_id}/questions")["items"])

    # records -------------------------------------------------------------------------------------

    def record_page(self, dataset_id: str, offset: int) -> tuple[list[dict[str, Any]], int]:
        """Up to 1,000 records with everybody's responses from `offset` in order of insertion, and how many there are.

        Records inserted between two pages come at the end; where some are deleted, others may be passed over.
        """
        page = self.get(f"datasets/{dataset_id}/records", offset=offset, limit=_PAGE, include="responses")
        return page["items"], int(page["total"])

    def record(self, server_id: str) -> dict[str, Any] | None:
        """One record with everybody's responses; None where it was deleted."""
        return self._found(f"records/{server_id}")

    def upsert(self, dataset_id: str, items: Sequence[dict[str, Any]]) -> Upserted:
        """Records in, by external id; only the keys that an item has are touched.

        One bad record makes Argilla refuse its whole batch, so a refused batch is halved until the bad ones stand
        alone; the others go in.
        """
        result = Upserted()
        batches = [list(items[start : start + _BULK]) for start in range(0, len(items), _BULK)]
        while batches:
            batch = batches.pop()
            try:
                answer = self.send("PUT", f"datasets/{dataset_id}/records/bulk", {"items": batch})
            except RequestRefusedError as error:
                if error.status not in (400, 413, 422):
                    raise
                if len(batch) == 1:
                    result.refused[batch[0]["external_id"]] = error.detail
                else:
                    middle = len(batch) // 2
                    batches += [batch[middle:], batch[:middle]]
                continue
            result.server_ids.update({item["external_id"]: str(item["id"]) for item in answer["items"]})
        return result

    # requests ------------------------------------------------------------------------------------

    def get(self, path: str, **params: Any) -> Any:
        """The JSON answer to a GET of `/api/v1/{path}`."""
        return self._request("GET", path, params=params)

    def send(self, method: str, path: str, body: Any = None, *, patience: float | None = None) -> Any:
        """The JSON answer to a request with a JSON body (None where it has none). patience: seconds, instead of the
        client's own."""
        return self._request(method, path, patience=patience, json=body)

    def _found(self, path: str) -> dict[str, Any] | None:
        try:
            return dict(self.get(path))
        except RequestRefusedError as error:
            if error.status != 404:
                raise
            return None

    def _request(self, method: str, path: str, *, patience: float | None = None, **arguments: Any) -> Any:
        def once() -> Any:
            response = self._http.request(method, f"/api/v1/{path}", **arguments)
            if response.status_code >= 300:
                raise httpx.HTTPStatusError(response.text, request=response.request, response=response)
            return response.json() if response.content else None

        return _patiently(once, self.api_url, self._patience if patience is None else patience)


def _patiently(call: Callable[[], Any], api_url: str, patience: float) -> Any:
    """The result of `call`; what says nothing about the request is tried again until `patience` seconds are over."""
    deadline = time.monotonic() + patience
    wait = 0.25
    while True:
        try:
            return call()
        except (ArgillaError, httpx.HTTPError, httpx.InvalidURL, ValidationError, json.JSONDecodeError) as error:
            problem, pause = _explain(error, api_url)
            if isinstance(problem, ReviewRefusedError) or time.monotonic() + wait > deadline:
                raise problem from error
        time.sleep(max(pause, wait * random.uniform(0.75, 1.25)))
        wait = min(wait * 2, 8.0)


def _explain(error: Exception, api_url: str) -> tuple[ReviewRefusedError | ReviewUnavailableError, float]:
    """A failure in our words, and how many seconds the server asks to wait."""
    where = f"Argilla at {api_url}"
    if isinstance(error, httpx.HTTPStatusError):
        return _explain_status(error.response.status_code, _detail(error.response), where), _retry_after(error.response)
    if isinstance(error, ArgillaCredentialsError):
        return _explain_status(401, "", where), 0.0
    if isinstance(error, ArgillaAPIError):
        return _explain_status(error.status_code, str(error), where), 0.0
    problem: ReviewRefusedError | ReviewUnavailableError
    if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
        problem = ReviewRefusedError(f"{api_url!r} is not an http(s) address", hint=_ADDRESS)
    elif isinstance(error, httpx.TimeoutException):
        problem = ReviewUnavailableError(f"{where} does not answer in time", hint=_START_AGAIN)
    elif isinstance(error, httpx.TransportError):
        reason = str(error) or type(error).__name__
        problem = ReviewUnavailableError(f"{where} cannot be reached: {reason}", hint=_START_AGAIN)
    else:
        problem = ReviewUnavailableError(f"what answers at {api_url} does not speak Argilla's language", hint=_ADDRESS)
    return problem, 0.0


def _explain_status(status: int, detail: str, where: str) -> ReviewRefusedError | ReviewUnavailableError:
    if status in _TRANSIENT:
        return ReviewUnavailableError(f"{where} answers with HTTP {status}: {detail[:200]}", hint=_START_AGAIN)
    if status == 401:
        return ReviewRefusedError(
            f"{where} refuses the API key",
            hint="Take it from My settings in Argilla (a local one: sia server credentials): export ARGILLA_API_KEY=…",
        )
    if status == 403:
        message = f"{where} does not allow this to the user of this API key"
        return RequestRefusedError(
            message, status, detail, hint="Use the key of an owner, or of an admin of the workspace."
        )
    if 300 <= status < 400:
        return ReviewRefusedError(f"{where} has moved (HTTP {status})", hint=_ADDRESS)
    return RequestRefusedError(
        f"{where} refuses a request (HTTP {status}): {detail[:300]}", status, detail, hint=_ADDRESS
    )


def _retry_after(response: httpx.Response) -> float:
    after = response.headers.get("retry-after", "")
    return min(float(after), 30.0) if after.isdigit() else 0.0


def _detail(response: httpx.Response) -> str:
    """Argilla's own words about a refusal."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return " ".join(response.text.split())[:500]
    if isinstance(detail, dict):
        detail = detail.get("params", {}).get("detail") or detail.get("params") or detail.get("code") or detail
    return detail if isinstance(detail, str) else json.dumps(detail)[:500]
