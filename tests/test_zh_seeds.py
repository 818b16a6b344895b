"""The bundled Chinese seed tasks: counts, format, correctness of what can be recomputed, and no near-duplicates."""

import contextlib
import itertools
import json
import re
import sqlite3
import statistics
from pathlib import Path
from typing import Any

import pytest
from rapidfuzz.distance import LCSseq

SEED_TASKS = Path(__file__).parents[1] / "seeds" / "zh_seed_tasks.jsonl"
TASKS: list[dict[str, Any]] = [json.loads(line) for line in SEED_TASKS.read_text(encoding="utf-8").splitlines()]
BY_NAME = {task["name"]: task for task in TASKS}

MEDICINE = {
    "zh_which_department",
    "zh_health_claim",
    "zh_daily_salt",
    "zh_fever_when_to_see_doctor",
    "zh_cpr_key_points",
    "zh_leaflet_max_dose",
    "zh_record_in_plain_words",
    "zh_bmi_calculation",
    "zh_extract_symptoms",
    "zh_fasting_glucose_report",
}
FINANCE = {
    "zh_fraud_sms",
    "zh_accounting_element",
    "zh_simple_vs_compound",
    "zh_price_earnings_ratio",
    "zh_graduate_budget",
    "zh_fixed_deposit",
    "zh_revenue_growth",
    "zh_fund_units",
    "zh_insurance_waiting_period",
    "zh_sum_up_bookkeeping",
}


def output(name: str) -> str:
    text: str = BY_NAME[name]["instances"][0]["output"]
    return text


def given(name: str) -> str:
    text: str = BY_NAME[name]["instances"][0]["input"]
    return text


def code(name: str, language: str) -> str:
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", output(name), re.DOTALL))


def han_share(text: str) -> float:
    """The share of Han characters among the letters of `text`, from 0 to 1."""
    letters = [char for char in text if char.isalpha()]
    return sum("\u4e00" <= char <= "\u9fff" for char in letters) / len(letters)


def run(source: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "seed_task"}
    exec(compile(source, "<seed task>", "exec"), namespace)
    return namespace


def test_counts() -> None:
    assert len(TASKS) == 60
    assert sum(task["is_classification"] for task in TASKS) == 10
    assert 16 <= sum(not any(each["input"] for each in task["instances"]) for task in TASKS) <= 20
    assert len(MEDICINE) == len(FINANCE) == 10
    assert (MEDICINE | FINANCE).issubset(BY_NAME)


def test_ids_names_and_instructions_are_unique_and_in_order() -> None:
    assert [task["id"] for task in TASKS] == [f"zh_seed_task_{number}" for number in range(60)]
    assert len(BY_NAME) == 60
    assert len({task["instruction"] for task in TASKS}) == 60


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task["name"])
def test_schema(task: dict[str, Any]) -> None:
    assert list(task) == ["id", "name", "instruction", "instances", "is_classification"]
    assert re.fullmatch(r"zh(_[a-z0-9]+)+", task["name"])
    assert type(task["is_classification"]) is bool
    assert task["instances"]
    inputs = [instance["input"] for instance in task["instances"]]
    assert len(set(inputs)) == len(inputs)
    assert all(inputs) or len(inputs) == 1
    for instance in task["instances"]:
        assert list(instance) == ["input", "output"]
        for text in instance.values():
            assert text == text.strip()
            assert not text.endswith((":", "："))
            assert not re.search(r"输入\s*[:：]|输出\s*[:：]|Input:|Output:|Task:|Class label:", text)
        assert instance["output"]
        assert instance["output"] != instance["input"]
        if task["is_classification"]:
            assert instance["input"]
            assert len(instance["output"]) <= 5


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task["name"])
def test_instruction_is_chinese(task: dict[str, Any]) -> None:
    assert 8 <= len(task["instruction"]) <= 150
    assert han_share(task["instruction"]) > 0.4  # a short one may name a Python function


def test_text_is_predominantly_han() -> None:
    texts = [text for task in TASKS for instance in task["instances"] for text in instance.values()]
    assert han_share("".join(texts)) > 0.85
    assert han_share("".join(task["instruction"] for task in TASKS)) > 0.9


def test_no_near_duplicates() -> None:
    def f_measure(first: str, second: str) -> float:
        return 2 * LCSseq.similarity(first, second) / (len(first) + len(second))

    instructions = [task["instruction"] for task in TASKS]
    assert [pair for pair in itertools.combinations(instructions, 2) if f_measure(*pair) >= 0.7] == []


# --- code -------------------------------------------------------------------------------------------------------------


def test_python_count_hanzi() -> None:
    count_hanzi = run(code("zh_python_count_hanzi", "python"))["count_hanzi"]
    assert [count_hanzi(text) for text in ("", "abc，。", "一龥龿x", "你好, world")] == [0, 0, 3, 2]


def test_python_median() -> None:
    median = run(code("zh_fix_median", "python"))["median"]
    broken = run(given("zh_fix_median"))["median"]
    assert broken([9, 1, 5]) != 5
    for size in range(1, 6):
        for numbers in itertools.permutations(range(size)):
            assert median(list(numbers)) == statistics.median(numbers)


def test_every_output_with_code_is_checked() -> None:
    assert {task["name"] for task in TASKS if "```" in output(task["name"])} == {
        "zh_python_count_hanzi",
        "zh_fix_median",
        "zh_sql_class_average",
    }


def test_sql_class_average() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute(f"CREATE TABLE {given('zh_sql_class_average')}")
        rows = [("甲", "一班", 70), ("乙", "一班", 90), ("丙", "二班", 79), ("丁", "三班", 95)]
        database.executemany("INSERT INTO scores VALUES (?, ?, ?)", rows)
        assert database.execute(code("zh_sql_class_average", "sql")).fetchall() == [("三班", 95), ("一班", 80)]


def test_regex_mobile_number() -> None:
    pattern = re.compile(output("zh_regex_mobile_number"))
    assert all(pattern.search(number) for number in ("13800000000", "19912345678"))
    assert not any(pattern.search(number) for number in ("12800000000", "1380000000", "138000000000", "a3800000000"))


def test_event_to_json() -> None:
    event = json.loads(output("zh_event_to_json"))
    assert list(event) == ["活动", "日期", "地点", "联系人"]
    assert event["日期"] == "2025-04-23"
    assert all(event[key] in given("zh_event_to_json") for key in ("活动", "地点", "联系人"))


# --- words and lengths ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shortest", "longest"),
    [("zh_main_idea", 1, 30), ("zh_autumn_rain", 30, 80), ("zh_product_copy", 32, 50)],
)
def test_outputs_keep_to_the_length_asked_for(name: str, shortest: int, longest: int) -> None:
    assert shortest <= len(output(name)) <= longest


def test_couplet_lines_have_seven_characters() -> None:
    lines = dict(line.split("：") for line in output("zh_spring_couplet").splitlines())
    assert [len(lines[part]) for part in ("上联", "下联", "横批")] == [7, 7, 4]
    assert not set(lines["上联"]) & set(lines["下联"])


def test_poem_has_the_form_of_its_label() -> None:
    lines = re.split(r"[，。\n]+", given("zh_poem_form").strip("。"))
    assert [len(line) for line in lines] == [5, 5, 5, 5]
    assert output("zh_poem_form") == "五言绝句"


def test_punctuation_changes_no_character() -> None:
    assert re.sub(r"[^\u4e00-\u9fff]", "", output("zh_add_punctuation")) == given("zh_add_punctuation")


def test_labels_are_among_the_options_of_the_instruction() -> None:
    for task in TASKS:
        if task["is_classification"]:
            assert all(instance["output"] in task["instruction"] for instance in task["instances"])


def test_exactly_one_speaker_tells_the_truth() -> None:
    # 甲: "it was 乙"; 乙: "it was not me"; 丙: "it was not me".
    culprits = [who for who in "甲乙丙" if sum([who == "乙", who != "乙", who != "丙"]) == 1]
    assert output("zh_who_broke_the_vase").endswith(f"花瓶是{culprits[0]}打碎的。")
    assert len(culprits) == 1


# --- sums: what the output must contain, recomputed here --------------------------------------------------------------

BUDGET = [1800, 1500, 300, 500, 600, 1300]
NET_PURCHASE = round(10000 / 1.0015, 2)
TRICYCLES = 47 - 20 * 2
SUMS = {
    "zh_bikes_and_tricycles": [f"三轮车有 {TRICYCLES} 辆", f"自行车有 20 − 7 = {20 - TRICYCLES} 辆"],
    "zh_meeting_trains": [f"= {450 // (80 + 70)}（小时）", f"= {80 * 450 // (80 + 70)}（千米）"],
    "zh_numerals_to_digits": ["30056\n120000000\n907"],
    "zh_simple_vs_compound": [
        f"共{10000 + 10000 * 4 * 3 // 100}元",
        f"= {10000 * 1.04**3:.2f}元",
        f"多出{10000 * 1.04**3 - 11200:.2f}元",
    ],
    "zh_price_earnings_ratio": [f"= {30 // 2}倍"],
    "zh_graduate_budget": [*(f"：{amount}元" for amount in BUDGET), f"合计：{sum(BUDGET)}元"],
    "zh_leaflet_max_dose": [f"= {20 * 10 * 5 // 100} 毫升", "最多4次"],
    "zh_bmi_calculation": [f"≈ {65 / 1.70**2:.1f}", "正常"],
    "zh_fixed_deposit": [f"= {20000 + 20000 * 15 * 2 // 1000}（元）"],
    "zh_revenue_growth": [f"增长{(9.2 - 8.0) / 8.0:.0%}", f"下降{(1.20 - 1.14) / 1.20:.0%}"],
    "zh_fund_units": [
        f"≈ {NET_PURCHASE:.2f}（元）",
        f"= {10000 - NET_PURCHASE:.2f}（元）",
        f"≈ {NET_PURCHASE / 1.25:.2f}（份）",
    ],
    "zh_sum_up_bookkeeping": [f"= {8 + 46 + 92}元", f"= {5 + 5 + 23}元", f"= {8 + 5 + 46 + 40 + 5 + 92 + 23}元"],
}


@pytest.mark.parametrize("name", SUMS)
def test_sums(name: str) -> None:
    for expected in SUMS[name]:
        assert expected in output(name)
