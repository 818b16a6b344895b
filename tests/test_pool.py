"""The task pool: its moves and its memory, several processes on it, and databases that are not well."""

from __future__ import annotations

import itertools
import multiprocessing
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from selfinstruct_argilla.errors import PoolError, StatusError, TaskConflictError
from selfinstruct_argilla.pool import engine as engine_module
from selfinstruct_argilla.pool.jsonl import format_tasks
from selfinstruct_argilla.pool.locks import round_lock
from selfinstruct_argilla.pool.moves import MOVES
from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.tasks import Instance, Origin, Status, Task, Verdict

pytest_plugins = ["postgres"]


def task(id: str = "t1", instruction: str = "Name three colours.", **values: Any) -> Task:
    return Task(
        id, instruction, (Instance("", "Red, blue, green."), Instance("Warm ones.", "Red, orange, pink.")), **values
    )


def put(pool: TaskPool, id: str, status: Status) -> None:
    """A task in a status, however it would get there."""
    with pool.write() as writer:
        writer.add([task(id, status=status)], kind="imported")


# moves -----------------------------------------------------------------------------------------

ALLOWED = {
    ("candidate", "in_review"),
    *(("in_review", after) for after in ("accepted", "rejected", "conflict", "withdrawn")),
    *itertools.permutations(("accepted", "rejected", "conflict"), 2),
    *((before, "in_review") for before in ("accepted", "rejected", "conflict")),
    *((before, "withdrawn") for before in ("accepted", "rejected", "conflict")),
}


def test_the_table_of_moves_is_the_designs() -> None:
    assert {(before.value, after.value) for before, afters in MOVES.items() for after in afters} == ALLOWED
    assert set(MOVES) == set(Status)


def test_every_move_is_checked_and_remembered(tmp_path: Path) -> None:
    with TaskPool.open(f"sqlite:///{tmp_path / 'pool.db'}") as pool:
        for before, after in itertools.permutations(Status, 2):
            id = f"{before.value}-{after.value}"
            put(pool, id, before)
            if (before.value, after.value) in ALLOWED:
                with pool.write() as writer:
                    writer.move(id, after, kind="reviewed", detail={"why": "ä"})
                last = pool.history(id)[-1]
                assert (last.before, last.after, last.kind, last.detail) == (before, after, "reviewed", {"why": "ä"})
                assert pool.task(id).status is after  # type: ignore[union-attr]
            else:
                with pytest.raises(StatusError, match=f"is {before.value} and cannot become {after.value}"):
                    with pool.write() as writer:
                        writer.move(id, after, kind="reviewed")
                assert len(pool.history(id)) == 1
                assert pool.task(id).status is before  # type: ignore[union-attr]


def test_a_move_to_the_same_status_is_none(tmp_path: Path) -> None:
    with TaskPool.open(f"sqlite:///{tmp_path / 'pool.db'}") as pool:
        put(pool, "t", Status.ACCEPTED)
        revision = pool.revision
        with pool.write() as writer:
            writer.move("t", Status.ACCEPTED, kind="reviewed")
        assert pool.revision == revision


def test_one_bad_move_undoes_the_whole_transaction(pool_url: str) -> None:
    with TaskPool.open(pool_url) as pool:
        put(pool, "good", Status.CANDIDATE)
        put(pool, "seed", Status.SEED)
        with pytest.raises(StatusError), pool.write() as writer:
            writer.mark_pushed(["good", "seed"])
        assert pool.task("good").status is Status.CANDIDATE  # type: ignore[union-attr]
        assert [event.kind for event in pool.history("good")] == ["imported"]


def test_a_task_that_is_not_there(tmp_path: Path) -> None:
    with TaskPool.open(f"sqlite:///{tmp_path / 'pool.db'}") as pool:
        assert pool.task("nobody") is None
        with pytest.raises(PoolError, match="there is no task 'nobody'"):
            pool.history("nobody")
        with pytest.raises(PoolError, match="there is no task 'nobody'"), pool.write() as writer:
            writer.move("nobody", Status.WITHDRAWN, kind="withdrawn")


# import and export -----------------------------------------------------------------------------


def test_tasks_come_back_as_they_were(pool_url: str) -> None:
    odd = task(
        "ü/:%_'\"",
        "Zeile\u2028 “zwei” 三 \U0001f600\n\ttab",
        name="n",
        is_classification=None,
        extra={"k": ["v", None, 1.5, "\x00"]},
    )
    plain = task("b", is_classification=True)
    with TaskPool.open(pool_url) as pool:
        result = pool.import_tasks([odd, plain], Status.CANDIDATE)
        assert (result.added, result.unchanged) == (2, 0)
        expected = [Task(**{**t.__dict__, "status": Status.CANDIDATE, "origin": Origin.IMPORTED}) for t in (plain, odd)]
        assert pool.tasks() == expected
        assert pool.tasks(status="candidate") == expected
        assert pool.tasks([Status.SEED, "accepted"]) == []
        assert pool.tasks(ids=["b", "c"]) == expected[:1]
        assert pool.counts() == {**dict.fromkeys((s.value for s in Status), 0), "candidate": 2}


def test_importing_again_changes_nothing_and_other_content_is_refused(pool_url: str) -> None:
    with TaskPool.open(pool_url) as pool:
        pool.add_seeds([task("a"), task("b")])
        revision = pool.revision
        again = pool.add_seeds([task("b", name=""), task("a")])
        assert (again.added, again.unchanged, pool.revision) == (0, 2, revision)
        with pytest.raises(TaskConflictError, match="'b' with other content") as caught:
            pool.add_seeds([task("c"), task("b", "Name four colours.")])
        assert caught.value.task_id == "b"
        assert [t.id for t in pool.tasks()] == ["a", "b"], "all of a file or nothing"


def test_an_edited_seed_file_may_come_in_again_as_it_was_first(tmp_path: Path) -> None:
    with TaskPool.open(f"sqlite:///{tmp_path / 'pool.db'}") as pool:
        pool.import_tasks([task("a")], Status.CANDIDATE)
        with pool.write() as writer:
            writer.mark_pushed(["a"])
            writer.apply_reviews([task("a", "Name three hues.", status=Status.ACCEPTED, origin=Origin.IMPORTED)])
        assert pool.import_tasks([task("a")], Status.CANDIDATE).unchanged == 1
        assert pool.import_tasks([task("a", "Name three hues.")], Status.CANDIDATE).unchanged == 1
        with pytest.raises(TaskConflictError):
            pool.import_tasks([task("a", "Name a hue.")], Status.CANDIDATE)


def test_an_export_is_sorted_by_id_and_holds_no_time(pool_url: str) -> None:
    ids = ["b", "a", "B", "_", "10", "9", "é", "e", "Z"]
    exports = []
    with TaskPool.open(pool_url) as pool:
        for id in ids:
            pool.import_tasks([task(id)], Status.ACCEPTED)
        exports.append("".join(format_tasks(pool.tasks())))
    assert [line[8] for line in exports[0].splitlines()] == [id[0] for id in sorted(ids)]


def test_a_thousand_tasks_at_once(pool_url: str) -> None:
    many = [task(f"t{number:05d}") for number in range(1200)]
    with TaskPool.open(pool_url) as pool:
        assert pool.import_tasks(many, Status.CANDIDATE).added == 1200
        assert pool.import_tasks(many, Status.CANDIDATE).unchanged == 1200
        assert [t.id for t in pool.tasks(ids=[t.id for t in many])] == [t.id for t in many]


def test_new_ids_follow_what_is_there(pool_url: str) -> None:
    with TaskPool.open(pool_url) as pool, pool.write() as writer:
        assert writer.next_ids("generated", 2) == ["generated_00000001", "generated_00000002"]
        writer.add(
            [task("generated_00000041"), task("generated_zzzzzzzz"), task("generated_²²²²²²²²")], kind="imported"
        )
        writer.add([task("generatedx00000099"), task("generated_000000042"), task("induced_00000050")], kind="imported")
        assert writer.next_ids("generated", 1) == ["generated_00000042"]


# edits -----------------------------------------------------------------------------------------


def test_an_edit_keeps_the_original_and_its_undoing_restores_it(pool_url: str) -> None:
    with TaskPool.open(pool_url) as pool:
        put(pool, "t1", Status.CANDIDATE)
        with pool.write() as writer:
            writer.mark_pushed(["t1"])
        assert [i.verdict for i in pool.task("t1").instances] == [Verdict.PENDING] * 2  # type: ignore[union-attr]
        written = pool.task("t1")
        assert written is not None
        judged = tuple(Instance(i.input, i.output, Verdict.ACCEPTED) for i in written.instances)
        edited = Task(
            **{**written.__dict__, "instruction": "Name two.", "instances": judged, "status": Status.ACCEPTED}
        )
        with pool.write() as writer:
            assert writer.apply_reviews([edited])
            assert not writer.apply_reviews([edited]), "the same again changes nothing"
        assert pool.task("t1") == edited
        assert pool.originals()["t1"].instruction == "Name three colours."
        with pool.write() as writer:
            assert writer.apply_reviews([Task(**{**edited.__dict__, "instruction": "Name one."})])
        assert pool.originals()["t1"].instruction == "Name three colours.", "the first text is the original"
        with pool.write() as writer:
            assert writer.apply_reviews([Task(**{**edited.__dict__, "instruction": "Name three colours."})])
        assert pool.originals() == {}
        kinds = [event.kind for event in pool.history("t1")]
        assert kinds == ["imported", "pushed", "edited", "reviewed", "edited", "restored"]
        assert pool.history("t1")[4].detail["before"]["instruction"] == "Name two."


def test_outlines_tell_what_was_distilled_whatever_else_is_kept(pool_url: str) -> None:
    with TaskPool.open(pool_url) as pool:
        extras: dict[str, dict[str, Any]] = {"a": {}, "b": {"note": "\x00"}, "c": {"distilled_from": "a"}}
        pool.import_tasks(
            [task(name, f"Write {name}.", extra=extra) for name, extra in extras.items()], Status.CANDIDATE
        )
        found = [(t.id, t.instances, t.distilled) for t in pool.outlines(Status.CANDIDATE)]
        assert found == [("a", 2, False), ("b", 2, False), ("c", 2, True)]


# several processes -----------------------------------------------------------------------------


def _add_many(url: str, name: str, count: int) -> None:
    with TaskPool.open(url) as pool:
        for number in range(count):
            with pool.write() as writer:
                (id,) = writer.next_ids("generated", 1)
                writer.add([task(id, f"{name} {number}", status=Status.CANDIDATE)], kind="generated")


def test_four_processes_write_to_one_new_pool(pool_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_add_many, args=(pool_url, name, 15)) for name in "abcd"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    with TaskPool.open(pool_url) as pool:
        ids = [t.id for t in pool.tasks()]
        assert ids == [f"generated_{number:08d}" for number in range(1, 61)]
        assert len({t.instruction for t in pool.tasks()}) == 60
        with pool.engine.connect() as connection:
            sequences = connection.execute(text("SELECT sequence FROM tasks ORDER BY sequence")).scalars().all()
        assert sequences == list(range(1, 61))


def test_a_round_belongs_to_one_process(pool_url: str) -> None:
    with TaskPool.open(pool_url) as pool, TaskPool.open(pool_url) as other:
        with round_lock(pool.engine, 1) as held:
            assert held
            with round_lock(other.engine, 1) as second, round_lock(other.engine, 2) as third:
                assert (second, third) == (False, True)
        with round_lock(other.engine, 1) as again:
            assert again


def test_reads_see_one_state(pool_url: str) -> None:
    """A reader that began before a commit goes on seeing what was there."""
    with TaskPool.open(pool_url) as pool, TaskPool.open(pool_url) as other:
        put(pool, "a", Status.SEED)
        with engine_module.reading(pool.engine) as connection:
            count = text("SELECT count(*) FROM tasks")
            assert connection.execute(count).scalar() == 1
            put(other, "b", Status.SEED)
            assert connection.execute(count).scalar() == 1
        assert pool.counts()["seed"] == 2


# databases that are not well -------------------------------------------------------------------


def test_a_pool_of_a_newer_version_is_refused(pool_url: str) -> None:
    with TaskPool.open(pool_url) as pool, pool.engine.begin() as connection:
        connection.execute(text("UPDATE meta SET value = '99' WHERE key = 'schema_version'"))
    with pytest.raises(PoolError, match="made by a newer selfinstruct-argilla") as caught:
        TaskPool.open(pool_url)
    assert "upgrade" in str(caught.value.hint)


def test_another_database_is_refused_and_left_alone(pool_url: str) -> None:
    engine = engine_module.create_engine(pool_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE customers (id INTEGER)"))
    with pytest.raises(PoolError, match="is a database, but not a task pool"):
        TaskPool.open(pool_url)
    with engine.connect() as connection:
        assert engine_module.inspect(connection).get_table_names() == ["customers"]
    engine.dispose()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing but words\n" * 100)
    with pytest.raises(PoolError, match="cannot be used: file is not a database"):
        TaskPool.open(f"sqlite:///{path}")
    assert path.read_text().startswith("nothing but words")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="there is no pool at"):
        TaskPool.open(f"sqlite:///{tmp_path / 'deep' / 'pool.db'}", create=False)
    assert not (tmp_path / "deep").exists()
    with TaskPool.open(f"sqlite:///{tmp_path / 'deep' / 'pool.db'}") as pool:
        assert pool.counts()["seed"] == 0
    (tmp_path / "file").write_text("")
    with pytest.raises(PoolError, match="cannot be made"):
        TaskPool.open(f"sqlite:///{tmp_path / 'file' / 'pool.db'}")


@pytest.mark.parametrize("url", ["pool.db", "mysql://user@host/db", "sqlite+nothing:///pool.db", ""])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(PoolError):
        TaskPool.open(url)


def test_a_server_that_is_away() -> None:
    with pytest.raises(PoolError, match="cannot be used") as caught:
        TaskPool.open("postgresql+psycopg://somebody:secret@127.0.0.1:9/pool")
    assert "Check that the database server runs" in str(caught.value.hint)
    assert "secret" not in str(caught.value)


def test_a_pool_that_another_program_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_BUSY_SECONDS", 0.2)
    path = tmp_path / "pool.db"
    with TaskPool.open(f"sqlite:///{path}") as pool:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert pool.counts()["seed"] == 0, "readers do not wait"
        with pytest.raises(PoolError, match="database is locked") as caught:
            pool.add_seeds([task()])
        assert "Another process holds the pool" in str(caught.value.hint)
        other.execute("ROLLBACK")
        other.close()
        assert pool.add_seeds([task()]).added == 1


def test_opening_a_new_pool_waits_for_others_who_do() -> None:
    """SQLite says that the file is locked, without waiting, where two connections change to WAL at once."""
    answers = [sqlite3.OperationalError("database is locked")] * 2

    class Cursor:
        def execute(self, statement: str) -> None:
            if answers:
                raise answers.pop()

    engine_module._use_wal(Cursor())  # type: ignore[arg-type]
    assert not answers
    answers.append(sqlite3.OperationalError("disk I/O error"))
    with pytest.raises(sqlite3.OperationalError, match="disk"):
        engine_module._use_wal(Cursor())  # type: ignore[arg-type]


def test_a_writer_waits_for_another(tmp_path: Path) -> None:
    path = tmp_path / "pool.db"
    with TaskPool.open(f"sqlite:///{path}") as pool:
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        threading.Timer(0.3, lambda: other.execute("ROLLBACK")).start()
        pool.add_seeds([task()])
        assert time.monotonic() - started >= 0.25
        other.close()


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    with TaskPool.open(f"sqlite:///{tmp_path / 'pool.db'}") as pool:
        pool.add_seeds([task("a")])
        with pool.engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()

        @engine_module.event.listens_for(pool.engine, "checkout")
        def small(dbapi_connection: Any, *_: Any) -> None:
            dbapi_connection.execute(f"PRAGMA max_page_count = {pages + 2}")

        pool.engine.dispose()
        with pytest.raises(PoolError, match="database or disk is full") as caught:
            pool.add_seeds([task(f"t{number}", "long " * 500) for number in range(100)])
        assert "Free some space" in str(caught.value.hint)
        engine_module.event.remove(pool.engine, "checkout", small)
        pool.engine.dispose()
    with TaskPool.open(f"sqlite:///{tmp_path / 'pool.db'}") as pool:
        assert [t.id for t in pool.tasks()] == ["a"]
        assert pool.add_seeds([task("b")]).added == 1


def test_a_pool_keeps_its_id(pool_url: str) -> None:
    with TaskPool.open(pool_url) as pool:
        first = pool.id
    with TaskPool.open(pool_url) as pool:
        assert pool.id == first
