"""What it costs to say how far people agree: a review of records that three of eight annotators judged each.

    python tests/benchmarks/bench_quality.py [RECORDS]

Prints JSON: seconds of reading the answers and working out every figure with its intervals, over all and for each of
eight rounds, as `sia status` does; answers a second; and the memory of the process.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from review_people import YES, candidates

from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.pool.reviews import Response, ReviewDataset, ReviewRecord, Reviews
from selfinstruct_argilla.review.quality import review_quality
from selfinstruct_argilla.review.rubric import load_rubric
from selfinstruct_argilla.tasks import Status, Verdict

ROUNDS, ANNOTATORS, EACH = 8, 8, 3


def judged_pool(pool: TaskPool, records: int) -> None:
    """Everybody sees four of five answers as they are."""
    rng, rubric = random.Random(1), load_rubric("paper")
    tasks = [replace(task, round=1 + n * ROUNDS // records) for n, task in enumerate(candidates(records))]
    stored = rubric.model_dump(mode="json", by_alias=True)
    dataset = ReviewDataset("dataset", "name", "workspace", "http://x", "http://x", stored, rubric.version, "")
    pool.import_tasks(tasks, Status.CANDIDATE)
    responses = []
    for task in tasks:
        truth = {question: rng.choice(("yes", "yes", "no")) for question in YES}
        for person in rng.sample(range(ANNOTATORS), EACH):
            values = {q: answer if rng.random() < 0.8 else rng.choice(("yes", "no")) for q, answer in truth.items()}
            texts = {"instruction_edit": task.instruction, "output_edit": task.instances[0].output}
            name = f"ann {person}"
            responses.append(Response(task.id, 0, name, name, "submitted", {**values, **texts}, None, rubric.version))
    verdicts = (Verdict.ACCEPTED, Verdict.REJECTED)
    with pool.write() as writer:
        Reviews.save_dataset(writer.connection, dataset)
        Reviews.save_records(
            writer.connection,
            [
                ReviewRecord(task.id, 0, dataset.id, task.id, "", rubric.version, verdict=rng.choice(verdicts))
                for task in tasks
            ],
        )
        Reviews.add_responses(writer.connection, responses)


def main(records: int) -> None:
    with tempfile.TemporaryDirectory() as folder, TaskPool.open(f"sqlite:///{folder}/pool.db") as pool:
        judged_pool(pool, records)
        started = time.perf_counter()
        quality = review_quality(pool)
        seconds = time.perf_counter() - started
    assert quality is not None
    assert quality.overall.accepted.total == records
    assert len(quality.rounds) == ROUNDS
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {"records": records, "answers": records * EACH, "seconds": round(seconds, 2)}
    print(json.dumps({**figures, "answers_a_second": round(records * EACH / seconds), "megabytes": round(memory)}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
