"""The tables of the pool, on SQLite and PostgreSQL alike.

    tasks ─┬─ instances          what the tasks say now, and people's verdict on each instance
           └─ events             every move and edit, in order; its newest id is the pool's revision
    rounds ── waves ── drafts    bootstrap in progress: instructions that wait for their instances
    requests ── attempts         the journal: what was asked, and every answer or failure, before parsing
    discards                     what a filter turned away, with reason, score and nearest neighbour
    review_datasets ── review_records ── responses   what was pushed to Argilla, and what people answered
    releases · splits            what was published where, and the split of each task that was
    meta                         the pool's id, the version of this schema, and the salt of pseudonyms

Times are ISO 8601 in UTC; nothing in an export depends on them.
"""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, ForeignKey, Index, Integer, MetaData, Table, Text

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("sequence", Integer, nullable=False, unique=True),  # order of creation
    Column("name", Text, nullable=False),
    Column("instruction", Text, nullable=False),
    Column("is_classification", Boolean),
    Column("status", Text, nullable=False, index=True),
    Column("origin", Text, nullable=False),
    Column("round", Integer, nullable=False),
    Column("model", Text),
    Column("request", Text),
    Column("demonstrations", JSON, nullable=False),
    Column("max_rouge_l", Float),
    Column("nearest", Text),
    Column("extra", JSON, nullable=False),
    Column("original", JSON(none_as_null=True)),  # what the model wrote, once people have edited it
    Column("ayes", Integer, nullable=False),  # submitted judgements of its records that accept, and that reject
    Column("noes", Integer, nullable=False),
)

instances = Table(
    "instances",
    metadata,
    Column("task_id", Text, ForeignKey("tasks.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("input", Text, nullable=False),
    Column("output", Text, nullable=False),
    Column("verdict", Text),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("task_id", Text, ForeignKey("tasks.id"), nullable=False, index=True),
    Column("at", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("before", Text),
    Column("after", Text),
    Column("detail", JSON, nullable=False),
)

rounds = Table(
    "rounds",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("method", Text, nullable=False),
    Column("target", Integer, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("recipe", JSON, nullable=False),
    Column("state", Text, nullable=False),  # open | done
    Column("started_at", Text, nullable=False),
    Column("finished_at", Text),
)

waves = Table(
    "waves",
    metadata,
    Column("round", Integer, ForeignKey("rounds.number"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("owner", Integer, nullable=False),  # the round that finishes it: a later one where its own ended first
    Column("state", Text, nullable=False),  # planned | judged | finished
)

drafts = Table(
    "drafts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("round", Integer, nullable=False),
    Column("wave", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("judged_in", Integer, nullable=False),  # the round whose filters it passed
    Column("state", Text, nullable=False),  # open | admitted | discarded
    Column("instruction", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("requests", JSON, nullable=False),  # keys of the steps after the instruction, once it is closed
    Column("task_id", Text, index=True),  # once it is admitted
    Index("ix_drafts_wave", "round", "wave", "position", unique=True),
)

preambles = Table(
    "preambles",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("header", Text, nullable=False),
    Column("examples", JSON, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("key", Text, primary_key=True),
    Column("base_key", Text, nullable=False, index=True),
    Column("draw", Integer, nullable=False),
    Column("step", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("api", Text, nullable=False),
    Column("preamble", Text, ForeignKey("preambles.hash"), nullable=False),
    Column("query", Text, nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("round", Integer, nullable=False),
    Column("wave", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("demonstrations", JSON, nullable=False),
    Index("ix_requests_wave", "round", "wave", "step", "position"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("request", Text, ForeignKey("requests.key"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("outcome", Text, nullable=False),  # reply | refused | transient
    Column("text", Text),
    Column("finish_reason", Text),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("usd", Float, nullable=False),
    Column("latency_seconds", Float, nullable=False),
    Column("error", Text),
    Column("at", Text, nullable=False),
    Column("digest", Text, nullable=False),  # of what was answered, and what it cost
    # what `sia status` adds up, without the long texts
    Index("ix_attempts_spend", "request", "outcome", "prompt_tokens", "completion_tokens", "usd"),
)

discards = Table(
    "discards",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("round", Integer, nullable=False),
    Column("wave", Integer, nullable=False),
    Column("step", Text, nullable=False),
    Column("reason", Text, nullable=False, index=True),
    Column("text", Text, nullable=False),
    Column("score", Float),
    Column("nearest", Text),
    Column("detail", Text),
    Column("request", Text),
)

review_datasets = Table(
    "review_datasets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("workspace", Text, nullable=False),
    Column("api_url", Text, nullable=False),
    Column("url", Text, nullable=False),  # of its annotation page
    Column("rubric", JSON, nullable=False),
    Column("rubric_version", Text, nullable=False),
    Column("structure", Text, nullable=False),  # what of the rubric Argilla cannot change, as a digest
    Column("generation", Integer, nullable=False),  # grows with every sync that changed something
    Column("opened_at", Text, nullable=False),
)

review_records = Table(
    "review_records",
    metadata,
    Column("task_id", Text, primary_key=True),  # of a calibration record: a made-up one, of no task
    Column("instance", Integer, primary_key=True),
    Column("dataset_id", Text, nullable=False),
    Column("server_id", Text, nullable=False),
    Column("content_hash", Text, nullable=False),  # of what was pushed
    Column("rubric_version", Text, nullable=False),
    Column("resolution", Text, nullable=False),  # verdict, as last pushed to the record's metadata
    Column("state", Text, nullable=False),  # present | deleted
    Column("verdict", Text, nullable=False),  # accepted | rejected | conflict | pending
    Column("digest", Text, nullable=False),  # of the responses last seen
    Column("applied", Text, nullable=False),  # the digest and the rules that the verdict rests on
    Column("several", Boolean, nullable=False),  # wants `min_submitted` people; else one is enough
    Column("assigned", JSON, nullable=False),  # user names of those who are to judge it; none: anybody
    Column("suggested", JSON(none_as_null=True)),  # what the judge model thinks: {question: {value, score}}
    Column("gold", JSON(none_as_null=True)),  # known answers by question: a calibration record
)

responses = Table(
    "responses",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("task_id", Text, nullable=False),
    Column("instance", Integer, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("username", Text),
    Column("status", Text, nullable=False),  # submitted | draft | discarded | deleted
    Column("values", JSON, nullable=False),
    Column("updated_at", Text),  # by Argilla's clock
    Column("seen_at", Text, nullable=False),
    Column("current", Boolean, nullable=False),  # False once a later state of the same person was seen
    Column("rubric_version", Text, nullable=False),
    Index("ix_responses_record", "task_id", "instance", "current"),
)

releases = Table(
    "releases",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("version", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("tasks", Integer, nullable=False),
    Column("revision", Integer, nullable=False),  # of the pool it was built from
    Column("state", Text, nullable=False),  # building | published
    Column("at", Text, nullable=False),
    Column("commit", Text),
    Column("manifest", JSON, nullable=False),
    Index("ix_releases_version", "target", "version", unique=True),
)

splits = Table(
    "splits",
    metadata,
    Column("task_id", Text, primary_key=True),  # a task may have been published before it was in this pool
    Column("split", Text, nullable=False),  # train | validation | test; never changes
)
