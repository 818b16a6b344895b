"""Argilla's background jobs (record statuses after a change of distribution, webhooks, imports and exports) without
a second process: Redis inside this one unless `ARGILLA_REDIS_URL` names another, and an rq worker in a thread."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

_WORKER_THREAD = "background-jobs"


def use_embedded_redis_unless_configured() -> None:
    """Before argilla_server is imported: it connects to Redis then."""
    if "ARGILLA_REDIS_URL" in os.environ:
        return
    import fakeredis
    import redis

    server = fakeredis.FakeServer()
    redis.from_url = lambda url, **options: fakeredis.FakeStrictRedis(server=server)


def start_worker() -> None:
    """Work off Argilla's queues in a thread, retries included, with database connections of its own: the server's
    belong to the server's event loop."""
    from argilla_server.database import AsyncSessionLocal, async_engine
    from argilla_server.jobs.queues import DEFAULT_QUEUE, HIGH_QUEUE, REDIS_CONNECTION
    from argilla_server.settings import settings
    from rq import SimpleWorker
    from rq.scheduler import RQScheduler
    from rq.timeouts import TimerDeathPenalty
    from sqlalchemy import NullPool
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.orm import Session

    connect_args = settings.database_engine_args.get("connect_args", {})
    # Each job runs in an event loop of its own, so no connection may outlive a job.
    jobs_engine = create_async_engine(settings.database_url, poolclass=NullPool, connect_args=connect_args)

    class EngineOfTheThread(Session):
        def get_bind(self, *_args: Any, **_options: Any) -> Any:
            in_a_job = threading.current_thread().name == _WORKER_THREAD
            return (jobs_engine if in_a_job else async_engine).sync_engine

    AsyncSessionLocal.configure(sync_session_class=EngineOfTheThread)

    queues = [HIGH_QUEUE, DEFAULT_QUEUE]

    # Both would install signal handlers, which only the main thread may; theirs is the server's business anyway.
    class ThreadWorker(SimpleWorker):
        death_penalty_class = TimerDeathPenalty

        def _install_signal_handlers(self) -> None:
            pass

    class ThreadScheduler(RQScheduler):
        def _install_signal_handlers(self) -> None:
            pass

    def work() -> None:
        ThreadWorker(queues, connection=REDIS_CONNECTION).work(logging_level=logging.WARNING)

    def schedule_retries() -> None:
        scheduler = ThreadScheduler(queues, connection=REDIS_CONNECTION, logging_level=logging.WARNING)
        scheduler.acquire_locks()
        scheduler.work()

    for target, name in ((work, _WORKER_THREAD), (schedule_retries, "job-retries")):
        threading.Thread(target=_forever, args=(target,), name=name, daemon=True).start()


def _forever(target: Callable[[], None]) -> None:
    while True:
        try:
            target()
        except Exception:
            logging.getLogger("argilla").exception("The background jobs failed; they go on in 5 seconds")
        time.sleep(5)
