"""Words of any script, and what ROUGE-L makes of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.tokenize import tokenize

from selfinstruct_argilla.similarity.index import NoveltyIndex
from selfinstruct_argilla.similarity.tokens import auto_tokens, rouge_tokens


@given(st.text())
def test_rouge_tokens_are_those_of_rouge_score(text: str) -> None:
    assert rouge_tokens(text) == tokenize(text, stemmer=None)


@given(st.text(st.characters(max_codepoint=127)))
def test_auto_tokens_equal_rouge_tokens_on_ascii(text: str) -> None:
    assert auto_tokens(text) == (rouge_tokens(text) or [text.strip()])


@given(st.text(st.characters()))
def test_auto_tokens_are_never_missing(text: str) -> None:
    assert auto_tokens(text)
    assert auto_tokens(text) == auto_tokens(f" {text} ")


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("用Python写3个函数。", ["用", "python", "写", "3", "个", "函", "数"]),
        ("スーパーで", ["ス", "ー", "パ", "ー", "で"]),
        ("한국어 문장", ["한", "국", "어", "문", "장"]),
        ("Résumé d’été", ["résumé", "d", "été"]),
        ("Ёлка и снег", ["ёлка", "и", "снег"]),
        ("ΟΔΟΣ", ["οδοσ"]),
        ("اكتب قصيدة", ["اكتب", "قصيدة"]),
        ("हिन्दी में लिखिए", ["हिन्दी", "में", "लिखिए"]),
        ("เขียนเรื่องนี้ ๑๒", ["เขี", "ย", "น", "เรื่", "อ", "ง", "นี้", "๑๒"]),
        ("ພາສາລາວ", ["ພາ", "ສາ", "ລາ", "ວ"]),
        ("ភាសាខ្មែរ", ["ភា", "សា", "ខ្មែ", "រ"]),
        ("snake_case x² ½", ["snake", "case", "x2", "1", "2"]),
        ("☀️", ["☀"]),
        ("…", ["..."]),
    ],
)
def test_tokens_of_each_script(text: str, tokens: list[str]) -> None:
    assert auto_tokens(text) == tokens


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("ＡＢＣ　１２３", "abc 123"),
        ("ｶﾞｲﾄﾞ", "ガイド"),
        ("re\u0301sume\u0301", "RÉSUMÉ"),
        ("\u1112\u1161\u11ab", "한"),
        ("می\u200cروم", "میروم"),
        ("co\u00adoperate", "cooperate"),
        ("STRASSE", "straße"),
    ],
)
def test_forms_that_read_the_same_are_the_same(a: str, b: str) -> None:
    assert auto_tokens(a) == auto_tokens(b)


# An instruction, the same with a small change, and another one of the same kind.
SCRIPTS = {
    "Chinese": (
        "请写一首关于秋天的短诗，并解释它的含义。",
        "请写一首关于春天的短诗，并解释它的含义。",
        "列出五种可以减少家庭用电量的方法。",
    ),
    "Japanese": (
        "次の文章を三つの要点にまとめてください。",
        "次の文章を五つの要点にまとめてください。",
        "東京から京都までの行き方を教えてほしい。",
    ),
    "Korean": (
        "다음 문장을 영어로 번역하고 문법을 설명하세요.",
        "다음 문장을 일본어로 번역하고 문법을 설명하세요.",
        "건강한 아침 식사 메뉴를 세 가지 추천해 줘.",
    ),
    "Russian": (
        "Напиши короткое стихотворение о первой любви и объясни его смысл.",
        "Напиши короткое стихотворение о первой зиме и объясни его смысл.",
        "Перечисли пять способов сократить расходы на электричество дома.",
    ),
    "Arabic": (
        "اكتب قصيدة قصيرة عن فصل الخريف ثم اشرح معناها",
        "اكتب قصيدة قصيرة عن فصل الربيع ثم اشرح معناها",
        "اذكر خمس طرق لتقليل استهلاك الكهرباء في المنزل",
    ),
    "Hindi": (
        "पतझड़ के मौसम पर एक छोटी कविता लिखिए और उसका अर्थ समझाइए।",
        "वसंत के मौसम पर एक छोटी कविता लिखिए और उसका अर्थ समझाइए।",
        "घर में बिजली की खपत कम करने के पाँच तरीके बताइए।",
    ),
    "Thai": (
        "เขียนบทกวีสั้น ๆ เกี่ยวกับฤดูใบไม้ร่วงและอธิบายความหมาย",
        "เขียนบทกวีสั้น ๆ เกี่ยวกับฤดูใบไม้ผลิและอธิบายความหมาย",
        "บอกวิธีลดการใช้ไฟฟ้าในบ้านมาห้าวิธี",
    ),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_is_decided_as_a_reader_would(script: str) -> None:
    instruction, near, different = SCRIPTS[script]
    index = NoveltyIndex(0.7, tokens="auto")
    index.add("pooled", instruction)
    assert index.nearest(instruction).score == 1.0
    assert 0.7 < index.check(near).score < 1.0
    assert index.nearest(different).score < 0.4


@pytest.mark.parametrize(("tokens", "novel"), [("rouge", False), ("auto", True)])
def test_mixed_texts_are_not_reduced_to_their_ascii_words(tokens: str, novel: bool) -> None:
    index = NoveltyIndex(tokens=tokens)
    index.add("pooled", "用Python写一个排序函数")
    assert index.is_novel("Python是什么？") is novel
