"""The annotation page of the local Argilla in a real browser, as annotators use it.

Where no Chromium is installed these tests skip. Set SELFINSTRUCT_SCREENSHOTS to a folder to look at what they saw.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Locator, Page, expect, sync_playwright
from review_people import Person, Workspace, candidates

from selfinstruct_argilla.tasks import Status

SCREENSHOTS = os.environ.get("SELFINSTRUCT_SCREENSHOTS")
expect.set_options(timeout=20_000)  # a busy machine is no failure
QUESTIONS = ["1. Does the instruction", "2. Is the input", "3. Is the output"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome", "chrome"))
    path = next((name for name in found if name), None)
    with sync_playwright() as playwright:
        try:
            # without its sandbox it also starts as root, as in a container
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Error:
            pytest.skip("no Chromium is installed (apt install chromium, or playwright install chromium)")
        yield browser
        browser.close()


class Annotator:
    """Somebody in front of the page. Remembers every address outside the server that the page asked for."""

    def __init__(self, browser: Browser, workspace: Workspace, username: str, password: str) -> None:
        self.workspace, self.username = workspace, username
        self.page: Page = browser.new_context(viewport={"width": 1600, "height": 1300}).new_page()
        self.page.set_default_timeout(20_000)
        self.outside: list[str] = []
        self.broken: list[str] = []
        self.page.on("request", lambda request: self._note_request(request.url))
        self.page.on("response", lambda r: self.broken.append(f"{r.status} {r.url}") if r.status >= 500 else None)
        self.page.goto(workspace.api_url)
        self.page.locator("input[name=Username]").fill(username)
        self.page.locator("input[name=Password]").fill(password)
        self.page.keyboard.press("Enter")
        self.page.get_by_text("Your datasets").wait_for()

    def _note_request(self, url: str) -> None:
        if not url.startswith((self.workspace.api_url, "data:", "blob:")):
            self.outside.append(url)

    def open_dataset(self) -> None:
        self.page.get_by_text(self.workspace.dataset, exact=True).click()
        self.form.wait_for()

    @property
    def form(self) -> Locator:
        return self.page.get_by_role("form", name="Annotation Questions")

    @property
    def record(self) -> Locator:
        return self.page.locator(".record").first

    def question(self, name: str) -> Locator:
        return self.form.get_by_label(f"Question: {name}", exact=True)

    def choose(self, **answers: str) -> None:
        for name, answer in answers.items():
            self.question(name).get_by_role("button", name=answer, exact=True).click()

    def write(self, name: str, text: str) -> None:
        box = self.question(name).locator("[contenteditable]")
        box.click()
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.insert_text(text)

    def press(self, button: str) -> None:
        """Submit, Save as draft or Discard, and wait until the server has it."""
        with self.page.expect_response(lambda r: "/responses" in r.url and r.request.method in ("POST", "PUT")) as sent:
            self.form.get_by_role("button", name=button).click()
        assert sent.value.ok, sent.value.status

    def show(self, status: str) -> None:
        self.page.get_by_label("Filter Records by Status").click()
        with self.page.expect_response(lambda r: "/records" in r.url):
            self.page.locator(f".filter-status .option.{status}").click()

    def reset(self) -> None:
        """Takes search, filters and sorting back."""
        with self.page.expect_response(lambda r: "/records" in r.url):
            self.page.get_by_role("button", name="Reset").click()

    def sees(self, text: str) -> None:
        expect(self.record).to_contain_text(text)

    def total(self, count: int) -> None:
        expect(self.page.get_by_label("Total Records")).to_have_text(re.compile(rf"of\s+{count}"))

    def screenshot(self, name: str) -> None:
        if SCREENSHOTS:
            self.page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")

    def leave(self) -> None:
        self.page.context.close()
        assert not self.outside, "nothing is fetched from the internet"
        assert not self.broken


def account(workspace: Workspace, name: str, role: str = "annotator") -> tuple[Person, str]:
    """A user of the workspace who can log in to the page, with the password."""
    person, password = workspace.person(name, role), secrets.token_hex(8)
    # the API cannot change a password, so the account is made anew under its name
    person.leave()
    body = {"first_name": name, "username": person.username, "password": password, "role": role}
    user = workspace.owner.post("/users", json=body).json()
    assert workspace.owner.post(f"/workspaces/{workspace.id}/users", json={"user_id": user["id"]}).is_success
    return person, password


def responses(workspace: Workspace, number: int) -> list[dict[str, Any]]:
    return list(workspace.records()[f"generated_{number:08d}:0"].get("responses") or [])


def values(response: dict[str, Any]) -> dict[str, Any]:
    return {name: answer["value"] for name, answer in (response["values"] or {}).items()}


def test_an_annotator_does_everything_on_the_page(browser: Browser, workspace: Workspace) -> None:
    workspace.add(candidates(6))
    workspace.push()
    person, password = account(workspace, "ann")
    ann = Annotator(browser, workspace, person.username, password)
    ann.open_dataset()
    ann.total(6)

    shown = ann.record.inner_text()
    number = int(re.search(r"output (\d)", shown)[1])  # type: ignore[index]
    for text in (f"Instruction {number}", f"input {number}.0", f"output {number}.0", "ROUGE-L 0.25"):
        assert text in shown, shown
    for question in QUESTIONS:
        expect(ann.form).to_contain_text(question)
    expect(ann.question("instruction_edit")).to_contain_text(f"Instruction {number}")
    expect(ann.question("input_edit")).to_contain_text(f"input {number}.0")
    expect(ann.question("output_edit")).to_contain_text(f"output {number}.0")
    ann.screenshot("annotation")
    guidelines = ann.page.locator(".panel").filter(has_text="Guidelines").first
    guidelines.locator(".panel__header").click()
    expect(guidelines).to_contain_text("correct")
    ann.screenshot("guidelines")
    guidelines.locator(".panel__header").click()

    # submit with an edit
    yes = {"instruction_valid": "Yes", "input_appropriate": "Yes", "output_correct": "Yes"}
    ann.choose(**{**yes, "output_correct": "No"})
    ann.write("output_edit", "Mended <b>output</b>: 秋天")
    ann.press("Submit")
    expect(ann.record).not_to_contain_text(f"output {number}")
    (response,) = responses(workspace, number)
    assert response["status"] == "submitted"
    assert values(response)["output_correct"] == "no"
    assert values(response)["output_edit"] == "Mended <b>output</b>: 秋天"
    mended = number

    # a draft, a discard
    def current() -> int:
        return int(re.search(r"output (\d)", ann.record.inner_text())[1])  # type: ignore[index]

    draft = current()
    ann.choose(instruction_valid="No")
    ann.press("Save as draft")
    ann.page.get_by_role("button", name="Next").first.click()
    expect(ann.record).not_to_contain_text(f"output {draft}")
    discarded = current()
    ann.press("Discard")
    expect(ann.record).not_to_contain_text(f"output {discarded}")
    assert [item["status"] for item in responses(workspace, draft)] == ["draft"]
    assert [item["status"] for item in responses(workspace, discarded)] == ["discarded"]

    # filter by status, go back, edit
    ann.show("draft")
    ann.total(1)
    ann.sees(f"output {draft}")
    ann.show("submitted")
    ann.total(1)
    ann.sees(f"output {mended}")
    ann.write("output_edit", "Mended again")
    ann.press("Submit")
    (response,) = responses(workspace, mended)
    assert values(response)["output_edit"] == "Mended again"
    ann.screenshot("submitted")

    # search, filter by metadata, sort
    ann.show("pending")
    ann.total(3)
    left = sorted({0, 1, 2, 3, 4, 5} - {mended, draft, discarded})
    ann.page.locator("button[data-title=Search]").click()
    ann.page.get_by_placeholder("Introduce a query").fill(f"{left[1]}.0")
    ann.page.keyboard.press("Enter")
    ann.total(1)
    ann.sees(f"output {left[1]}")
    ann.screenshot("search")
    ann.page.locator(".search-area__icon.--close").click()
    ann.total(3)
    ann.page.locator(".filters__filter-button").click()
    filters = ann.page.locator(".metadata-filter")
    filters.locator(".filter-button__button").first.click()
    filters.locator(".category__item", has_text="task_id").click()
    filters.get_by_text(f"generated_{left[2]:08d}").first.click()
    filters.locator(".filter-button__button").first.click()
    ann.total(1)
    ann.sees(f"output {left[2]}")
    ann.screenshot("filter")
    ann.reset()
    sort = ann.page.locator(".sort-filter")
    sort.locator(".filter-button__button").first.click()
    sort.get_by_role("button", name="task_id", exact=True).click()
    sort.locator(".filter-button__button").first.click()
    ann.sees(f"output {left[0]}")
    ann.page.get_by_role("button", name="Next").first.click()
    ann.sees(f"output {left[1]}")
    ann.screenshot("sorted")

    expect(ann.page.get_by_text("16.67%").or_(ann.page.get_by_text("16.66%")).first).to_be_visible()
    workspace.sync()
    assert workspace.status(mended) is Status.ACCEPTED
    assert workspace.status(draft) is Status.IN_REVIEW
    assert workspace.status(discarded) is Status.IN_REVIEW
    ann.leave()


def test_two_annotators_at_once_and_the_leads_settings(browser: Browser, workspace: Workspace) -> None:
    workspace.add(candidates(3))
    workspace.push()
    (ann_person, ann_password), (bob_person, bob_password) = account(workspace, "ann"), account(workspace, "bob")
    ann = Annotator(browser, workspace, ann_person.username, ann_password)
    bob = Annotator(browser, workspace, bob_person.username, bob_password)
    ann.open_dataset()
    bob.open_dataset()
    ann.choose(instruction_valid="Yes", input_appropriate="Yes", output_correct="Yes")
    bob.choose(instruction_valid="No", input_appropriate="Yes", output_correct="Yes")
    ann.press("Submit")
    bob.press("Submit")
    counts = [len(record.get("responses") or []) for record in workspace.records().values()]
    assert sum(counts) == 2, "neither answer is lost"
    result = workspace.sync()
    assert result.responses == 2
    ann.leave()
    bob.leave()

    lead_person, lead_password = account(workspace, "lead", "owner")
    lead = Annotator(browser, workspace, lead_person.username, lead_password)
    lead.open_dataset()
    lead.page.locator("button[data-title='Dataset settings']").click()
    expect(lead.page.get_by_text("Guidelines").first).to_be_visible()
    lead.page.get_by_text("Questions", exact=True).first.click()
    expect(lead.page.get_by_text("instruction_valid").first).to_be_visible()
    lead.screenshot("settings")
    lead.leave()


def test_an_adjudicator_finds_and_settles_a_conflict(browser: Browser, workspace: Workspace) -> None:
    lead_person, lead_password = account(workspace, "lead")
    workspace.rules.update(min_submitted=2, resolution="adjudicated", adjudicators=[lead_person.username])
    workspace.add(candidates(2))
    workspace.push()
    ann, bob = workspace.person("ann"), workspace.person("bob")
    for number in (0, 1):
        ann.submit(workspace.record_id(f"generated_{number:08d}:0"))
    bob.submit(workspace.record_id("generated_00000000:0"), output_correct="no")
    bob.submit(workspace.record_id("generated_00000001:0"))
    workspace.sync()
    lead = Annotator(browser, workspace, lead_person.username, lead_password)
    lead.page.get_by_text(workspace.dataset, exact=True).click()
    lead.show("draft")
    lead.total(1)
    lead.sees("output 0.0")
    for name in ("instruction_valid", "input_appropriate"):  # what they agreed on is filled in
        expect(lead.form.locator(f"#{name}_yes")).to_be_checked()
    for answer in ("yes", "no"):
        expect(lead.form.locator(f"#output_correct_{answer}")).not_to_be_checked()
    lead.screenshot("conflict")
    lead.choose(output_correct="No")
    lead.write("output_edit", "settled by the lead")
    lead.press("Submit")
    lead.leave()
    workspace.sync()
    assert workspace.status(0) is Status.ACCEPTED
    (task,) = workspace.pool.tasks(ids=["generated_00000000"])
    assert task.instances[0].output == "settled by the lead"
    assert not responses(workspace, 1)[2:], "what people agree on lands on nobody's desk"
