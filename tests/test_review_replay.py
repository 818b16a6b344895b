"""Random histories on a real Argilla: people answer, change their minds, delete; pushes and syncs are killed anywhere.

After each whole sync the pool must equal a replay of what people did, worked out here by other means.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from review_people import YES, Faults, KilledError, Person, Workspace, candidates

from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.tasks import Task

NO = {**YES, "output_correct": "no"}
ANSWERS: dict[str, dict[str, str]] = {
    "yes": YES,
    "no": NO,
    "invalid": {**YES, "instruction_valid": "no"},
    "mended x": {**NO, "output_edit": "x"},
    "mended y": {**NO, "output_edit": "y"},
    "reworded x": {**YES, "instruction_edit": "x"},
    "reworded y": {**YES, "instruction_edit": "y"},
    "input no, mended x": {**NO, "input_appropriate": "no", "output_edit": "x"},
}
GOOD = {"yes", "mended x", "mended y", "reworded x", "reworded y"}


def decide(good: list[bool], rule_: str) -> str:
    yes, no = good.count(True), good.count(False)
    if rule_ == "any":
        return "accepted" if yes else "rejected"
    if rule_ == "unanimous":
        return "conflict" if yes and no else "accepted" if yes else "rejected"
    return "conflict" if yes == no else "accepted" if yes > no else "rejected"


def replay_record(answers: list[str], rule_: str, minimum: int) -> tuple[str, str | None, str | None, bool]:
    """Verdict, the new output, the new instruction, and whether people found the instruction invalid."""
    if len(answers) < minimum:
        return "pending", None, None, False
    verdict = decide([answer in GOOD for answer in answers], rule_)
    invalid = decide([answer != "invalid" for answer in answers], rule_) == "rejected"
    outputs = {answer[-1] for answer in answers if answer in GOOD and answer.startswith("mended")}
    instructions = {answer[-1] for answer in answers if answer in GOOD and answer.startswith("reworded")}
    if verdict == "accepted" and (len(outputs) > 1 or len(instructions) > 1):
        verdict = "conflict"
    if verdict != "accepted":
        return verdict, None, None, invalid
    return verdict, next(iter(outputs), None), next(iter(instructions), None), invalid


def stands(task: Task) -> tuple[str, str | None, list[tuple[str, str]] | None]:
    """What a task has come to."""
    if task.status.value != "accepted":
        return task.status.value, None, None
    return "accepted", task.instruction, [(i.input, i.output) for i in task.accepted_instances()]


class Histories(RuleBasedStateMachine):
    workspace: Workspace
    people: list[Person]
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.workspace.pool = TaskPool.open(f"sqlite:///{self.folder}/{secrets.token_hex(6)}.db")
        self.workspace.dataset = f"review-{secrets.token_hex(6)}"
        self.workspace.rules = {"min_submitted": 1, "resolution": "majority"}
        self.tasks = 0
        self.said: dict[str, dict[str, str]] = {}  # record → person → answer, while it is submitted
        self.responses: dict[str, set[str]] = {}  # record → people who have a response of any kind
        self.deleted: set[str] = set()
        self.settled: dict[str, Any] = {}  # what tasks had come to when their dataset was deleted

    def teardown(self) -> None:
        self.compare()
        self.workspace.pool.close()

    # what happens

    @rule(count=st.integers(1, 2), instances=st.integers(1, 2))
    def generate(self, count: int, instances: int) -> None:
        self.workspace.add(candidates(self.tasks + count, instances=instances)[self.tasks :])
        self.tasks += count

    @rule(kill=st.integers(1, 30), after=st.booleans())
    def push_killed(self, kill: int, after: bool) -> None:
        self.killed(self.workspace.push, kill, after)

    @rule()
    def push(self) -> None:
        self.workspace.push()

    @precondition(lambda self: self.noted())
    @rule(kill=st.integers(1, 9), after=st.booleans())
    def sync_killed(self, kill: int, after: bool) -> None:
        if self.there():  # else it is refused
            self.killed(self.workspace.sync, kill, after)

    @precondition(lambda self: self.there())
    @rule(data=st.data(), answer=st.sampled_from([*ANSWERS, "draft", "discard", "discard nothing"]))
    def answer(self, data: Any, answer: str) -> None:
        key, record_id = data.draw(st.sampled_from(self.there()))
        person = data.draw(st.sampled_from(self.people))
        if answer in ANSWERS:
            person.submit(record_id, ANSWERS[answer])
            self.said.setdefault(key, {})[person.id] = answer
        else:
            if answer == "draft":
                person.draft(record_id, **YES)
            elif answer == "discard":
                person.discard(record_id, **YES)
            else:
                person.discard_without_values(record_id)
            self.said.get(key, {}).pop(person.id, None)
        self.responses.setdefault(key, set()).add(person.id)

    @precondition(lambda self: any(self.responses.values()))
    @rule(data=st.data())
    def take_back(self, data: Any) -> None:
        there = dict(self.there())
        pairs = [(key, who) for key, people in self.responses.items() if key in there for who in sorted(people)]
        if pairs:
            key, who = data.draw(st.sampled_from(pairs))
            next(person for person in self.people if person.id == who).delete(there[key])
            self.responses[key].discard(who)
            self.said.get(key, {}).pop(who, None)

    @precondition(lambda self: self.noted())
    @rule(data=st.data())
    def delete_record(self, data: Any) -> None:
        there = {key for key, _ in self.there()}
        keys = [key for key in self.noted() if key in there]
        if keys:
            key = data.draw(st.sampled_from(keys))
            self.workspace.delete_record(key)
            self.deleted.add(key)
            self.said.pop(key, None)
            self.responses.pop(key, None)

    @precondition(lambda self: self.there())
    @rule(really=st.booleans())
    def delete_dataset(self, really: bool) -> None:
        """What was decided stays; the rest is pushed to a new one, and nothing that was said of it counts."""
        if not really:  # seldom enough that histories get long
            return
        self.workspace.client.send("DELETE", f"datasets/{self.workspace.dataset_id}")
        self.said, self.responses = {}, {}
        gone = {f"{r.task_id}:{r.instance}" for r in self.workspace.pool.reviews.records() if r.state == "deleted"}
        for task in self.workspace.pool.tasks():
            if task.status.value in ("accepted", "rejected", "withdrawn"):
                self.settled.setdefault(task.id, stands(task))
            else:  # a deletion that no sync has seen is forgotten with the dataset
                self.deleted -= {f"{task.id}:{n}" for n in range(len(task.instances))} - gone

    @rule(minimum=st.integers(1, 3), resolution=st.sampled_from(["majority", "any", "unanimous"]))
    def change_rules(self, minimum: int, resolution: str) -> None:
        self.workspace.rules = {"min_submitted": minimum, "resolution": resolution}

    @rule()
    def compare(self) -> None:
        self.workspace.push()
        self.workspace.sync()
        expected = {task.id: self.replay(task.id, len(task.instances)) for task in self.workspace.pool.tasks()}
        actual = {task.id: stands(task) for task in self.workspace.pool.tasks()}
        assert actual == expected
        records = self.workspace.records()
        open_tasks = [task for task in self.workspace.pool.tasks() if task.id not in self.settled]
        every = {f"{task.id}:{n}" for task in open_tasks for n in range(len(task.instances))}
        assert set(records) == every - self.deleted
        verdicts = Counter(record["metadata"]["resolution"] for record in records.values())
        summary = self.workspace.pool.reviews.summary()
        assert (summary["pushed"], summary["pending"]) == (len(records), verdicts["pending"])
        assert summary["conflicts"] == verdicts["conflict"]
        responses = self.workspace.pool.reviews.responses()
        seen = [r for r in responses if r.status != "deleted" and r.task_id not in self.settled]
        assert len(seen) == sum(len(people) for people in self.responses.values())

    # how it is worked out here

    def replay(self, task_id: str, instances: int) -> tuple[str, str | None, list[tuple[str, str]] | None]:
        if task_id in self.settled:
            return self.settled[task_id]  # type: ignore[no-any-return]
        number = int(task_id.rpartition("_")[2])
        rule_, minimum = self.workspace.rules["resolution"], self.workspace.rules["min_submitted"]
        keys = [(n, f"{task_id}:{n}") for n in range(instances) if f"{task_id}:{n}" not in self.deleted]
        if not keys:
            return "withdrawn", None, None
        records = {n: replay_record(list(self.said.get(key, {}).values()), rule_, minimum) for n, key in keys}
        if any(invalid for *_, invalid in records.values()):
            return "rejected", None, None
        accepted = {n: record for n, record in records.items() if record[0] == "accepted"}
        instructions = {record[2] for record in accepted.values() if record[2] is not None}
        if len(instructions) > 1:
            return "conflict", None, None
        if accepted:
            texts = [(f"input {number}.{n}", record[1] or f"output {number}.{n}") for n, record in accepted.items()]
            return "accepted", next(iter(instructions), f"Instruction {number}"), texts
        verdicts = {record[0] for record in records.values()}
        status = "conflict" if "conflict" in verdicts else "in_review" if "pending" in verdicts else "rejected"
        return status, None, None

    def noted(self) -> list[str]:
        return [
            f"{r.task_id}:{r.instance}"
            for r in self.workspace.pool.reviews.records()
            if f"{r.task_id}:{r.instance}" not in self.deleted
        ]

    def there(self) -> list[tuple[str, str]]:
        """Records that people can open."""
        if self.workspace.client.dataset_named(self.workspace.dataset, self.workspace.id) is None:
            return []
        return sorted((key, str(record["id"])) for key, record in self.workspace.records().items())

    def killed(self, work: Callable[[], Any], number: int, after: bool) -> None:
        faults = Faults(self.workspace.client)

        def kill(now: int, method: str, path: str) -> None:
            if now == number:
                raise KilledError

        setattr(faults, "after" if after else "before", kill)
        try:
            work()
        except KilledError:
            pass
        finally:
            faults.heal()


@pytest.mark.timeout(600)
def test_any_history_ends_where_its_replay_ends(workspace: Workspace, tmp_path: Path) -> None:
    Histories.workspace = workspace
    Histories.people = [workspace.person(name) for name in ("ann", "bob", "eve")]
    Histories.folder = tmp_path
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=8, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
