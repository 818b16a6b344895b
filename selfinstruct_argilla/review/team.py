"""The people of a review: their accounts, and how far each of them is. For the lead; none of it is ever published."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ReviewRefusedError, UsageError
from ..pool.pool import TaskPool
from ..recipe import Review
from ..tasks import Verdict
from .quality import Share, calibration

if TYPE_CHECKING:
    from .argilla_client import ArgillaClient


ROLES = ("annotator", "admin")


@dataclass(frozen=True)
class Member:
    """Somebody in the review's workspace. Password and key are known only of an account just made."""

    username: str
    role: str
    password: str | None = None
    api_key: str | None = None


@dataclass(frozen=True)
class MemberProgress:
    """One person's review records as of the last sync: submitted, in draft, discarded; `assigned` to this person, and
    of those still `waiting` for an answer. calibration: known answers given right."""

    username: str
    role: str
    submitted: int
    drafts: int
    discarded: int
    assigned: int
    waiting: int
    calibration: Share | None


@dataclass(frozen=True)
class Comment:
    """What somebody wrote beside the answers to one record; status: of their response, submitted or discarded."""

    task_id: str
    instance: int
    username: str
    status: str
    question: str
    text: str


def add_members(client: ArgillaClient, review: Review, names: Sequence[str], *, role: str) -> list[Member]:
    """Everybody named, in the review's workspace, which is made where it is missing.

    Who has an account keeps it, and only joins; the others get one with a random password. Needs the key of an owner.
    Raises ReviewRefusedError.
    """
    if role not in ROLES:
        raise UsageError(f"there is no role {role!r} in a team", hint=f"Choose one of {', '.join(ROLES)}.")
    known = {user["username"]: user for user in client.get("users")["items"]}
    workspace = review.argilla.workspace
    workspaces = {item["name"]: str(item["id"]) for item in client.get("me/workspaces")["items"]}
    workspace_id = workspaces.get(workspace) or str(client.send("POST", "workspaces", {"name": workspace})["id"])
    there = {user["id"] for user in client.get(f"workspaces/{workspace_id}/users")["items"]}
    added = []
    for name in dict.fromkeys(names):
        user = known.get(name)
        if user is None:
            password = secrets.token_urlsafe(12)
            account = {"username": name, "first_name": name, "role": role, "password": password}
            user = client.send("POST", "users", account)
            added.append(Member(name, role, password, user["api_key"]))
        else:
            added.append(Member(name, user["role"]))
        if user["id"] not in there:
            client.send("POST", f"workspaces/{workspace_id}/users", {"user_id": user["id"]})
    return added


def members(client: ArgillaClient, review: Review) -> list[Member]:
    """Who is in the review's workspace, by name; owners see every workspace without being in it."""
    workspace_id = client.workspace_id(review.argilla.workspace)
    users = client.get(f"workspaces/{workspace_id}/users")["items"]
    return sorted((Member(user["username"], user["role"]) for user in users), key=lambda member: member.username)


def team_progress(pool: TaskPool, people: Sequence[Member]) -> list[MemberProgress]:
    """How far everybody is who is in the workspace, or has answered, or has records assigned."""
    datasets = pool.reviews.datasets()
    records = [r for r in pool.reviews.records(datasets[-1].id, gold=None) if r.state == "present"] if datasets else []
    there = {(record.task_id, record.instance) for record in records}
    said: dict[str, Counter[str]] = {}
    answered: set[tuple[str, str, int]] = set()
    for response in pool.reviews.responses():
        if (response.task_id, response.instance) in there and response.status != "deleted":
            name = response.username or response.user_id
            said.setdefault(name, Counter())[response.status] += 1
            answered.add((name, response.task_id, response.instance))
    assigned = Counter(name for record in records for name in record.assigned)
    waiting = Counter(
        name
        for record in records
        for name in record.assigned
        if record.verdict is Verdict.PENDING and (name, record.task_id, record.instance) not in answered
    )
    accuracy = calibration(pool)
    roles = {member.username: member.role for member in people}
    found = []
    for name in sorted({*roles, *said, *assigned}):
        counts = said.get(name, Counter())
        found.append(
            MemberProgress(
                username=name,
                role=roles.get(name, "not in the workspace"),
                submitted=counts["submitted"],
                drafts=counts["draft"],
                discarded=counts["discarded"],
                assigned=assigned[name],
                waiting=waiting[name],
                calibration=accuracy.get(name),
            )
        )
    return found


def comments(pool: TaskPool) -> list[Comment]:
    """What people wrote to the questions that edit nothing, by record; as of the last sync."""
    questions = {
        question["name"]: None
        for dataset in pool.reviews.datasets()
        for question in dataset.rubric["questions"]
        if question["type"] == "text" and question["edits"] is None
    }
    found = [
        Comment(
            task_id=response.task_id,
            instance=response.instance,
            username=response.username or response.user_id,
            status=response.status,
            question=question,
            text=response.values[question],
        )
        for response in pool.reviews.responses()
        for question in questions
        if response.values.get(question) and response.status in ("submitted", "discarded")
    ]
    return sorted(found, key=lambda comment: (comment.task_id, comment.instance, comment.username))


def check_annotators(review: Review, names: dict[str, str]) -> None:
    """Raises ReviewRefusedError where the recipe assigns records to somebody who cannot open them.

    names: of those who can, by user id; empty where the user of the key may not know them.
    """
    unknown = sorted(set(review.annotators) - set(names.values())) if names else []
    if unknown:
        raise ReviewRefusedError(
            f"review.annotators names people who are not in the workspace {review.argilla.workspace!r}:"
            f" {', '.join(unknown)}",
            hint=f"sia team add RECIPE {' '.join(unknown)}, or correct the names.",
        )
