"""The bundled seed tasks: counts, format, correctness of what can be recomputed, and no near-duplicates."""

import ast
import contextlib
import datetime
import functools
import html.parser
import io
import itertools
import json
import re
import sqlite3
import statistics
import subprocess
import types
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from rouge_score import rouge_scorer, tokenizers

SEED_TASKS = Path(__file__).parents[1] / "seeds" / "seed_tasks.jsonl"
TASKS: list[dict[str, Any]] = [json.loads(line) for line in SEED_TASKS.read_text(encoding="utf-8").splitlines()]
BY_NAME = {task["name"]: task for task in TASKS}
CLASSIFICATION = [task for task in TASKS if task["is_classification"]]

# What the filters of the paper (and of Alpaca) refuse in a generated instruction.
REFUSED_WORDS = re.compile(
    r"\b(images?|graphs?|pictures?|files?|maps?|draw|plot|go to|video|audio|music|flowchart|diagram)\b", re.IGNORECASE
)
# The tags that separate input and output in the instance prompts.
PROMPT_TAGS = re.compile(r"Input\s*\d*\s*:|Output\s*\d*\s*:|Class label:|Task:|Example\s*\d", re.IGNORECASE)


def output(name: str, instance: int = 0) -> str:
    text: str = BY_NAME[name]["instances"][instance]["output"]
    return text


def given(name: str, instance: int = 0) -> str:
    text: str = BY_NAME[name]["instances"][instance]["input"]
    return text


def code(name: str, language: str = "python") -> str:
    """The fenced code of an output, or the whole output where nothing is fenced."""
    fenced = re.findall(rf"```{language}\n(.*?)```", output(name), re.DOTALL)
    return "\n".join(fenced) if fenced else output(name)


def run(source: str) -> dict[str, Any]:
    """The namespace that `source` leaves behind when it is executed on its own."""
    namespace: dict[str, Any] = {"__name__": "seed_task"}
    exec(compile(source, "<seed task>", "exec"), namespace)
    return namespace


# --- counts and format ------------------------------------------------------------------------------------------------


def test_counts() -> None:
    assert len(TASKS) == 175
    assert len(CLASSIFICATION) == 25
    without_input = [task for task in TASKS if not any(instance["input"] for instance in task["instances"])]
    assert 48 <= len(without_input) <= 52
    # The few-shot prompt of the classification step needs 12 classification tasks and 19 others, early on.
    assert sum(task["is_classification"] for task in TASKS[:87]) >= 12


def test_ids_names_and_instructions_are_unique_and_in_order() -> None:
    assert [task["id"] for task in TASKS] == [f"seed_task_{number}" for number in range(175)]
    assert len(BY_NAME) == 175
    assert len({task["instruction"].casefold() for task in TASKS}) == 175


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task["name"])
def test_schema(task: dict[str, Any]) -> None:
    assert list(task) == ["id", "name", "instruction", "instances", "is_classification"]
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", task["name"])
    assert type(task["is_classification"]) is bool
    assert task["instances"]
    inputs = [instance["input"] for instance in task["instances"]]
    assert len(set(inputs)) == len(inputs)
    assert all(inputs) or len(inputs) == 1
    for instance in task["instances"]:
        assert list(instance) == ["input", "output"]
        for text in instance.values():
            assert text == text.strip()
            assert not text.endswith(":")
            assert not PROMPT_TAGS.search(text)
        assert instance["output"]
        assert instance["output"] != instance["input"]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task["name"])
def test_instruction_passes_the_filters(task: dict[str, Any]) -> None:
    instruction = task["instruction"]
    assert instruction == " ".join(instruction.split())
    assert 4 <= len(instruction.split()) <= 150
    assert instruction[0].isascii() and instruction[0].isupper()
    assert not instruction.startswith("Write a program")
    assert not REFUSED_WORDS.search(instruction)
    assert not PROMPT_TAGS.search(instruction)


@pytest.mark.parametrize("task", CLASSIFICATION, ids=lambda task: task["name"])
def test_classification_tasks_have_an_input_and_a_short_label(task: dict[str, Any]) -> None:
    for instance in task["instances"]:
        assert instance["input"]
        assert len(instance["output"].split()) <= 2


def test_classification_labels_are_varied() -> None:
    assert len({instance["output"] for task in CLASSIFICATION for instance in task["instances"]}) >= 20


def test_no_near_duplicates() -> None:
    tokenizer = types.SimpleNamespace(tokenize=functools.cache(tokenizers.DefaultTokenizer(use_stemmer=False).tokenize))
    scorer = rouge_scorer.RougeScorer(["rougeL"], tokenizer=tokenizer)
    close = [
        (first["name"], second["name"])
        for first, second in itertools.combinations(TASKS, 2)
        if scorer.score(first["instruction"], second["instruction"])["rougeL"].fmeasure >= 0.7
    ]
    assert close == []


# --- Python code ------------------------------------------------------------------------------------------------------


def check_next_weekday(space: dict[str, Any]) -> None:
    friday = datetime.date(2024, 3, 1)
    for days, expected in [(0, 4), (1, 4), (2, 4), (3, 5)]:
        assert space["next_weekday"](friday + datetime.timedelta(days)) == datetime.date(2024, 3, expected)


def check_split_bill(space: dict[str, Any]) -> None:
    assert space["split_bill"](1000, 3) == [334, 333, 333]
    for total, people in itertools.product(range(25), range(1, 7)):
        shares = space["split_bill"](total, people)
        assert (sum(shares), len(shares)) == (total, people)
        assert shares == sorted(shares, reverse=True) and shares[0] - shares[-1] <= 1
    with pytest.raises(ValueError, match="at least 1"):
        space["split_bill"](10, 0)


def check_moving_average(space: dict[str, Any]) -> None:
    values = [3, 1, 4, 1, 5, 9, 2, 6]
    for window in range(1, 10):
        expected = [statistics.mean(values[i : i + window]) for i in range(len(values) - window + 1)]
        assert space["moving_average"](values, window) == pytest.approx(expected)
    with pytest.raises(ValueError, match="at least 1"):
        space["moving_average"](values, 0)


def check_group_anagrams(space: dict[str, Any]) -> None:
    assert space["group_anagrams"](["stop", "tea", "post", "eat"]) == [["stop", "post"], ["tea", "eat"]]
    assert space["group_anagrams"]([]) == []


def check_find(space: dict[str, Any]) -> None:
    for size in range(12):
        items = list(range(0, 2 * size, 2))
        for target in range(-1, 2 * size + 1):
            assert space["find"](items, target) == (items.index(target) if target in items else -1)


def check_initials(space: dict[str, Any]) -> None:
    assert space["initials"]("ada  king lovelace ") == "A.K.L."
    assert space["initials"]("") == ""


def check_clamp(space: dict[str, Any]) -> None:
    assert [space["clamp"](value, 0, 10) for value in (-3, 4, 12)] == [0, 4, 10]
    clamp = ast.parse(code("add_type_hints_and_docstring")).body[0]
    assert isinstance(clamp, ast.FunctionDef)
    assert ast.get_docstring(clamp) and clamp.returns and all(argument.annotation for argument in clamp.args.args)


def check_long_words(space: dict[str, Any]) -> None:
    original = run(given("loop_to_comprehension"))["long_words"]
    for minimum in range(8):
        text = "Once upon A time there WAS"
        assert space["long_words"](text, minimum) == original(text, minimum)


def check_caesar(space: dict[str, Any]) -> None:
    assert space["caesar"]("Xyz, abc! Ünter 9", 3) == "Abc, def! Üqwhu 9"
    assert space["caesar"](space["caesar"]("Hello, World", 17), -17) == "Hello, World"


def check_slugify_tests(space: dict[str, Any]) -> None:
    tests = [name for name in space if name.startswith("test_")]
    assert len(tests) == 3
    for name in tests:
        space[name]()
    space["slugify"] = str.lower  # a test that cannot fail is none
    for name in tests:
        with pytest.raises(AssertionError):
            space[name]()


def check_flatten(space: dict[str, Any]) -> None:
    nested: Any = None
    for value in range(5000, 0, -1):
        nested = (value, nested)
    assert space["flatten"](nested) == list(range(1, 5001))
    assert space["flatten"](None) == []


PYTHON_CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "python_next_weekday": check_next_weekday,
    "python_split_bill": check_split_bill,
    "python_moving_average": check_moving_average,
    "python_group_anagrams": check_group_anagrams,
    "fix_endless_binary_search": check_find,
    "javascript_to_python": check_initials,
    "add_type_hints_and_docstring": check_clamp,
    "loop_to_comprehension": check_long_words,
    "caesar_from_docstring": check_caesar,
    "unit_tests_for_slugify": check_slugify_tests,
    "recursion_to_loop": check_flatten,
}


@pytest.mark.parametrize("name", PYTHON_CHECKS)
def test_python_code_runs_and_behaves(name: str) -> None:
    PYTHON_CHECKS[name](run(code(name)))


def test_every_output_with_python_code_is_checked() -> None:
    with_code = {
        task["name"] for task in TASKS for each in task["instances"] if re.search(r"(?m)^def ", each["output"])
    }
    assert with_code == set(PYTHON_CHECKS)


def test_predicted_python_result() -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run(given("predict_python_result"))
    assert printed.getvalue().strip() == output("predict_python_result")


def test_traceback_is_real_and_its_repair_works() -> None:
    *_, line, message = given("explain_traceback").splitlines()
    with pytest.raises(TypeError, match=re.escape(message.removeprefix("TypeError: "))):
        run("total = 3\n" + line.strip())
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run("total = 3\n" + output("explain_traceback").splitlines()[-1])
    assert printed.getvalue() == "Total: 3\n"


# --- SQL, regular expressions, shell, data formats --------------------------------------------------------------------


@pytest.fixture
def database() -> Any:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        yield connection


def test_sql_create_loans_table(database: sqlite3.Connection) -> None:
    database.executescript(code("sql_create_loans_table", "sql"))
    insert = "INSERT INTO loans (book_title, borrower, loaned_on, returned_on) VALUES (?, ?, ?, ?)"
    database.execute(insert, ("Emma", "Bo", "2024-02-01", None))
    database.execute(insert, ("Emma", "Bo", "2024-02-01", "2024-02-09"))
    assert database.execute("SELECT id FROM loans").fetchall() == [(1,), (2,)]
    for refused in [
        ("Emma", "Bo", "2024-02-01", "2024-01-31"),
        (None, "Bo", "2024-02-01", None),
        ("Emma", None, "2024-02-01", None),
    ]:
        with pytest.raises(sqlite3.IntegrityError):
            database.execute(insert, refused)


def test_sql_best_customers(database: sqlite3.Connection) -> None:
    database.executescript(
        "CREATE TABLE customers (id INTEGER, name TEXT);"
        "CREATE TABLE orders (id INTEGER, customer_id INTEGER, amount REAL);"
        "INSERT INTO customers VALUES (1, 'Ann'), (2, 'Bob'), (3, 'Cy');"
        "INSERT INTO orders VALUES (1, 1, 5), (2, 2, 20), (3, 1, 7);"
    )
    assert database.execute(code("sql_best_customers", "sql")).fetchall() == [("Bob", 20), ("Ann", 12), ("Cy", 0)]


def test_sql_fix_aggregate_filter(database: sqlite3.Connection) -> None:
    database.executescript(
        "CREATE TABLE members (name TEXT, city TEXT);"
        "INSERT INTO members VALUES ('a', 'Oslo'), ('b', 'Oslo'), ('c', 'Oslo'), ('d', 'Bern'), ('e', 'Bern');"
    )
    with pytest.raises(sqlite3.OperationalError):
        database.execute(given("sql_fix_aggregate_filter"))
    assert database.execute(code("sql_fix_aggregate_filter", "sql")).fetchall() == [("Oslo", 3)]


def test_explained_sql(database: sqlite3.Connection) -> None:
    database.executescript(
        "CREATE TABLE books (id INTEGER, title TEXT); CREATE TABLE loans (book_id INTEGER, returned_on TEXT);"
        "INSERT INTO books VALUES (1, 'Zoo'), (2, 'Out'), (3, 'Back'); "
        "INSERT INTO loans VALUES (2, NULL), (3, '2024-01-01');"
    )
    # "All books that are not on loan, in alphabetical order": never lent or returned.
    assert database.execute(given("explain_sql_in_words")).fetchall() == [("Back",), ("Zoo",)]


def test_regex_24_hour_time() -> None:
    pattern = re.compile(output("regex_24_hour_time"))
    for hour, minute in itertools.product(range(100), range(100)):
        assert bool(pattern.search(f"{hour:02}:{minute:02}")) == (hour < 24 and minute < 60)
    for refused in ("7:45", "07:5", "07.45", " 07:45", "07:450"):
        assert not pattern.search(refused)


def test_regex_from_examples() -> None:
    pattern = re.compile(output("regex_from_examples"))
    match, no_match = (line.split(": ")[1].split(", ") for line in given("regex_from_examples").splitlines())
    assert all(pattern.fullmatch(text) for text in match)
    assert not any(pattern.fullmatch(text) for text in no_match)


def test_explained_regex_accepts_the_number_quoted() -> None:
    (quoted,) = re.findall(r'such as "(.+?)"', output("explain_regex"))
    assert re.search(given("explain_regex"), quoted)


def test_shell_count(tmp_path: Path) -> None:
    (tmp_path / "access.log").write_text("GET /a 404 12\nGET /404/ 200 9\nGET /b 404 7\n", encoding="utf-8")
    done = subprocess.run(
        output("shell_count_404_lines"),
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.strip() == "2"


def test_cron_schedule() -> None:
    minute, hour, day, month, weekday = output("cron_weekday_schedule").split()
    assert (minute, hour, day, month, weekday) == ("30", "6", "*", "*", "1-5")


def test_json_weather_reading() -> None:
    reading = json.loads(output("json_weather_reading"))
    assert datetime.datetime.strptime(reading["timestamp"], "%Y-%m-%dT%H:%M:%S%z").utcoffset() == datetime.timedelta()
    assert reading["warnings"] == [] and 0 <= reading["relative_humidity_percent"] <= 100
    assert len(reading) == 5


def test_contact_note_to_json() -> None:
    contact = json.loads(output("contact_note_to_json"))
    assert list(contact) == ["name", "company", "phone", "topics"]
    for text in [contact["name"], contact["company"], contact["phone"], *contact["topics"]]:
        assert text in given("contact_note_to_json")


def test_yaml_to_json() -> None:
    assert json.loads(output("yaml_to_json")) == yaml.safe_load(given("yaml_to_json"))


def test_markdown_table() -> None:
    head, ruler, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in output("csv_to_markdown_table").splitlines()
    ]
    assert [head, *rows] == [line.split(",") for line in given("csv_to_markdown_table").splitlines()]
    assert ruler == [":---", "---:", "---:"]


def test_html_list() -> None:
    items: list[str] = []

    class Items(html.parser.HTMLParser):
        def handle_data(self, data: str) -> None:
            items.append(data.strip())

    parser = Items(convert_charrefs=True)
    parser.feed(output("html_ordered_list"))
    parser.close()
    assert [item for item in items if item] == given("html_ordered_list").splitlines()
    assert not re.search(r"&(?!amp;|lt;)|<(?!/?(ol|li)>)", output("html_ordered_list"))


# --- words and lengths ------------------------------------------------------------------------------------------------

LONGEST_IN_WORDS = {
    "summarise_in_one_sentence": 25,
    "headline_for_local_news": 9,
    "cut_to_twenty_words": 20,
    "explain_the_observation": 59,
    "lighthouse_mystery_opening": 79,
    "recursion_without_jargon": 70,
    "retirement_toast": 66,
    "reply_to_cafe_review": 66,
}


@pytest.mark.parametrize("name", LONGEST_IN_WORDS)
def test_outputs_keep_to_the_length_asked_for(name: str) -> None:
    assert len(output(name).split()) <= LONGEST_IN_WORDS[name]


def test_commit_message_is_under_60_characters() -> None:
    assert len(output("commit_message_from_diff")) < 60


def test_word_games() -> None:
    words = output("letters_in_alphabetical_order").split(", ")
    assert len(words) == 5 and all(len(word) >= 5 and list(word) == sorted(word) for word in words)
    countries = output("countries_same_first_last_letter").split(", ")
    assert len(countries) == 4 and all(country[0].lower() == country[-1] for country in countries)
    assert [word[0] for word in output("nato_spelling_harvest").split()] == list("HARVEST")
    assert [line[0] for line in output("acrostic_river").splitlines()] == list("RIVER")
    sentence, planets = output("planets_mnemonic").split("\n\n")
    assert [word[0].upper() for word in sentence.split()] == [planet[0] for planet in planets.strip("()").split(", ")]


def test_orders() -> None:
    titles = given("alphabetise_titles").splitlines()
    assert output("alphabetise_titles").splitlines() == sorted(titles, key=lambda t: re.sub(r"^(The|A|An) ", "", t))
    addresses = re.findall(r"[\w.]+@[\w.]+\w", given("email_addresses_only"))
    assert output("email_addresses_only").splitlines() == sorted(addresses)
    metres = {"km": Fraction(1000), "cm": Fraction(1, 100), "mi": Fraction("1609.344"), "m": Fraction(1)}

    def length(text: str) -> Fraction:
        number, unit = text.rsplit(" ", 1)
        return Fraction(number.replace(",", "")) * metres[unit]

    measurements = given("rank_by_length").split(", ")
    assert output("rank_by_length").split(", ") == sorted(measurements, key=length)
    names = {name.lower(): name for name in reversed(given("remove_repeated_names").split(", "))}
    assert set(output("remove_repeated_names").split(", ")) == set(names.values())


# --- sums -------------------------------------------------------------------------------------------------------------


def plan_costs(minutes: int = 160) -> tuple[float, float]:
    return 9 + minutes * 0.12, 15 + max(0, minutes - 100) * 0.08


RENTS = [600, 620, 640, 650, 2490]
SPENT = [186.50, 274.00, 212.30, 58.00, 45.00]
DICE = [sum(throw) for throw in itertools.product(range(1, 7), repeat=2)]

# (task, instance) → what its output must contain, recomputed here.
SUMS: dict[tuple[str, int], list[str]] = {
    ("average_speed_there_and_back", 0): [f"{90 / (45 / 18 + 45 / 15):.1f} km/h"],
    ("two_dice_at_least_ten", 0): [str(Fraction(sum(total >= 10 for total in DICE), len(DICE)))],
    ("seconds_in_leap_year", 0): [f"{366 * 24 * 60 * 60:,}"],
    ("compound_interest_five_years", 0): [f"{1.03**5:.6f}", f"{2000 * 1.03**5:,.2f}", f"{2000 * 1.03**5 - 2000:.2f}"],
    ("mean_of_marks", 0): [f"{statistics.mean([14, 17, 9, 20, 12, 16]):.1f}"],
    ("price_after_two_discounts", 0): [f"The final price is {160 * 75 * 90 // 10000} euros"],
    ("scale_recipe", 0): [
        f"{300 * 10 // 4} g lentils, {2 * 10 // 4} carrots, {600 * 10 // 4:,} ml stock, {10 / 4} tablespoons"
    ],
    ("currency_with_given_rate", 0): [", ".join(f"{euros * 0.95:.2f}" for euros in (12.40, 80.00, 3.40))],
    ("oven_temperature_conversion", 0): [", ".join(str(5 * round((f - 32) * 5 / 9 / 5)) for f in (325, 350, 400, 450))],
    ("time_zones_call", 0): ["London: 13:30", "Mumbai: 19:00"],
    ("solve_linear_equation", 0): [f"x = {(18 + 12) // (3 + 2)}"],
    ("garden_path_area", 0): [f"covers 165 − 96 = {(12 + 3) * (8 + 3) - 12 * 8} m²"],
    ("add_fractions", 0): [str(Fraction(5, 6) + Fraction(3, 8))],
    ("add_fractions", 1): [str(Fraction(1, 4) + Fraction(5, 12))],
    ("decimal_to_binary", 0): [f"{77:b}"],
    ("next_terms_of_sequence", 0): [f"{2 * 47 + 1} and {2 * (2 * 47 + 1) + 1}"],
    ("find_error_in_solution", 0): [f"= {48 - 6 * (3 + 2)}."],
    ("mean_or_median", 0): [f"{statistics.mean(RENTS):,} euros", f"{statistics.median(RENTS)} euros"],
    ("trip_budget_left", 0): [f"{900 - sum(SPENT):.2f} is left", f"hostel ({max(SPENT):.2f})"],
    ("compare_phone_plans", 0): [
        *(f"= {cost:.2f}" for cost in plan_costs()),
        f"{plan_costs()[0] - plan_costs()[1]:.2f} a",
    ],
    ("estimate_loads_of_sand", 0): [f"{3 * 200 * 40 // 10:,} litres", f"2,400 / 80 = {2400 // 80} loads"],
    ("braking_force", 0): [f"{1200 * (20 - 8) // 4:,} N"],
    ("prime_or_composite", 0): ["composite" if any(91 % n == 0 for n in range(2, 91)) else "prime"],
    ("triangle_type", 0): ["impossible" if 4 + 5 <= 10 else "scalene"],
    ("answer_from_passage", 0): [str(1971 + 9)],
    ("extract_dates_iso", 0): ["2023-02-28"],
}


@pytest.mark.parametrize(("name", "instance"), SUMS, ids=[f"{name}:{instance}" for name, instance in SUMS])
def test_sums(name: str, instance: int) -> None:
    for expected in SUMS[name, instance]:
        assert expected in output(name, instance)


def test_chemical_equation_is_balanced() -> None:
    def atoms(side: str) -> dict[str, int]:
        count: dict[str, int] = {}
        for term in side.split(" + "):
            factor, formula = re.fullmatch(r"(\d*) ?(\w+)", term.strip()).groups()  # type: ignore[union-attr]
            for element, number in re.findall(r"([A-Z][a-z]?)(\d*)", formula):
                count[element] = count.get(element, 0) + int(factor or 1) * int(number or 1)
        return count

    left, right = output("balance_propane_combustion").split(" → ")
    assert atoms(left) == atoms(right)


def test_agenda_fills_thirty_minutes() -> None:
    assert sum(int(n) for n in re.findall(r": (\d+) minutes", output("meeting_agenda_30_minutes"))) == 30


def test_itinerary_has_no_gap_and_keeps_opening_hours() -> None:
    spans = re.findall(r"(\d\d:\d\d)-(\d\d:\d\d) (\w+)", output("museum_day_itinerary"))
    assert all(before[1] == after[0] for before, after in itertools.pairwise(spans))
    times = {place: (start, end) for start, end, place in spans}
    opening = {"Market": ("08:00", "12:00"), "Castle": ("10:00", "13:00"), "Gallery": ("12:00", "18:00")}
    for place, (opens, closes) in opening.items():
        assert opens <= times[place][0] and times[place][1] <= closes


def test_seating_puzzle_has_exactly_this_solution() -> None:
    solutions = [
        ", ".join(row)
        for row in itertools.permutations(["Ola", "Kim", "Ben", "Mia"])
        if row.index("Ola") in (0, 3)
        and {abs(row.index("Kim") - row.index(other)) for other in ("Ola", "Ben")} == {1}
        and row[3] == "Mia"
    ]
    assert solutions == [output("seating_puzzle")]


def test_transposed_chords() -> None:
    notes = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]

    def up(chord: str) -> str:
        root = chord.rstrip("m")
        return notes[(notes.index(root) + 2) % 12] + chord[len(root) :]

    assert output("transpose_chords").split() == [up(chord) for chord in given("transpose_chords").split()]
