"""The tasks of data/tasks: made as their scripts make them, well-formed, and right."""

import json
from collections import Counter
from functools import cache
from typing import Any

import pytest
from babel import Locale
from babel.core import get_global
from babel.languages import get_official_languages, get_territory_language_info

from crane_lab.cli.tasks import made_files
from crane_lab.engines.multiple_choice import metric_of
from crane_lab.engines.tasks import MULTILINGUAL, load_tasks
from crane_lab.pipeline import TABLES_OF, main_table
from crane_lab.store import ROOT
from crane_lab.texts.continuations import FAR, continuation_items, continuations, split_sentences
from crane_lab.texts.facts import FRAMES, Frame, alike
from crane_lab.texts.held_out import held_out_paragraphs

FOLDER, TEXTS = ROOT / "data" / "tasks", ROOT / "data" / "texts"
NAMES = [f"{kind}_{x}" for kind in ("continuation", "facts") for x in MULTILINGUAL]


@cache
def items(name: str) -> list[dict[str, Any]]:
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_files_are_what_the_script_makes() -> None:
    made = made_files(TEXTS)
    there = {path.name for path in FOLDER.iterdir() if path.is_file()}
    assert there - {"measured.csv"} == {*made, "README.md"}
    for name, content in made.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == content, name
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) < 6_000_000


def test_tables_name_them() -> None:
    tables = TABLES_OF["multilingual"]
    assert main_table("multilingual") == "continuation"
    assert [name for table in tables.values() for name in table.values()] == NAMES
    assert set(FRAMES) == set(MULTILINGUAL)


@pytest.mark.parametrize("name", ["facts_fr", "continuation_zh"])
def test_lm_eval_reads_them(name: str) -> None:
    task = load_tasks([name], FOLDER)[name]
    assert task.config.metadata["language"] == name[-2:]
    task.build_all_requests()
    first = task.instances[0]
    assert first.args[0] == task.eval_docs[0]["question"]
    assert first.args[1].startswith(" ") == (name != "continuation_zh")
    assert len(task.instances) == len(items(name)) * (8 if metric_of(task) != "acc" else 4)


@pytest.mark.parametrize("name", NAMES)
def test_well_formed_and_balanced(name: str) -> None:
    found = items(name)
    assert len(found) >= (300 if name.startswith("facts") else 100)
    assert len({item["id"] for item in found}) == len(found)
    asked = Counter((item["question"], item["options"][item["answer"]]) for item in found)
    assert set(asked.values()) == {1}
    for item in found:
        assert len(set(item["options"])) == 4 and item["cluster"] and item["relation"]
        assert item["question"] == item["question"].strip()
        assert all(option == option.strip() for option in item["options"])
    places_of = Counter(item["answer"] for item in found)
    assert max(places_of.values()) - min(places_of.values()) <= 1


# --------------------------------------------------------------------------------------- facts


def test_facts_are_parallel() -> None:
    english = items("facts_en")
    for x in MULTILINGUAL:
        for one, other in zip(english, items(f"facts_{x}"), strict=True):
            keys = ("cluster", "relation", "answer", "passage")
            assert [one[key] for key in keys] == [other[key] for key in keys]


def codes(table: Any) -> dict[str, str]:
    return {said: code for code, said in table.items()}


@cache
def city_zones(language: str) -> dict[str, str]:
    zones: Any = Locale(language).time_zones
    return {zones[zone].get("city", zone.split("/")[-1]): zone for zone in zones}


def country_of(zone: str) -> str:
    current = get_global("zone_aliases").get(zone, zone)
    return str(get_global("zone_territories")[current])


@pytest.mark.parametrize("language", ["ru", "zh", "ja", "el"])  # in which every city has a name
def test_no_wrong_option_is_right(language: str) -> None:
    locale, frame = Locale(language), FRAMES[language]
    territories = codes(locale.territories)
    tender, scripts = get_global("territory_currencies"), get_global("likely_subtags")
    relations = Counter[str]()
    for item in items(f"facts_{language}"):
        kind, wanted = item["relation"].split(".")
        ending = frame.ask(kind, "\0", wanted).split("\0")[1]
        subject = (
            item["question"]
            .removesuffix(ending)
            .removeprefix(f"{getattr(frame, kind)}{frame.colon}")
        )
        for place, option in enumerate(item["options"]):
            if wanted == "country":
                holds = country_of(city_zones(language)[subject]) == territories[option]
            elif wanted == "city":
                holds = country_of(city_zones(language)[option]) == territories[subject]
            elif wanted == "language":
                country, code = territories[subject], codes(locale.languages)[option]
                holds = code in get_official_languages(country, regional=True, de_facto=True)
                assert holds or code not in get_territory_language_info(country)
            elif wanted == "currency":
                used = [entry[0] for entry in tender[territories[subject]]]
                holds = codes(locale.currencies)[option] in used
            else:
                code = codes(locale.languages)[subject]
                written = {v.split("_")[1] for k, v in scripts.items() if k.split("_")[0] == code}
                holds = codes(locale.scripts)[option] in written
            assert holds == (place == item["answer"]), item
        assert not any(alike(subject, option) for option in item["options"]), item
        relations[item["relation"]] += 1
    assert set(relations) == {
        *("city.country", "country.city", "country.language"),
        *("country.currency", "language.script"),
    }


def test_names_that_look_alike() -> None:
    assert alike("Poland", "Polish zloty") and alike("Mexico", "New Mexico")
    assert alike("Niger", "Nigeria") and alike("Лаос", "лаосский") and alike("墨西哥城", "墨西哥")
    assert alike("الجزائر", "الجزائر العاصمة")
    assert not alike("Japan", "Tokyo") and not alike("الأردن", "العربية")
    assert not alike("日本", "东京") and not alike("Österreich", "Euro")


def test_frames() -> None:
    assert FRAMES["en"].ask("city", "Lima", "country") == "City: Lima. Country:"
    assert FRAMES["fr"].ask("country", "Pérou", "city") == "Pays : Pérou. Ville :"
    assert FRAMES["zh"].ask("city", "利马", "country") == "城市：利马。国家："
    assert [FRAMES[x].gap for x in ("en", "fr", "zh", "ja", "ko")] == [" ", " ", "", "", " "]
    for frame in FRAMES.values():
        kinds = [getattr(frame, kind) for kind in list(Frame.__annotations__)[:5]]
        assert all(kinds) and len(set(kinds)) == 5


# ------------------------------------------------------------------------------- continuation


@pytest.mark.parametrize("language", MULTILINGUAL)
def test_continuations_are_of_held_out_paragraphs(language: str) -> None:
    texts = held_out_paragraphs(TEXTS, [language])[language]
    held_out = set(json.loads((TEXTS / "paragraphs.json").read_text())["held_out"])
    assert set(texts) <= held_out
    for item in items(f"continuation_{language}"):
        number = int(item["cluster"].removeprefix("paragraph-"))
        right = item["options"][item["answer"]]
        joined = "".join(f"{item['question']} {right}".split())
        assert joined in "".join(texts[number].split()), item["id"]
        for option in item["options"]:
            own = [n for n, text in texts.items() if option in text]
            assert (number in own) == (option == right)
            assert option == right or any(abs(n - number) >= FAR for n in own)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It works. Does it? “It does!” So.", ["It works.", "Does it?", "“It does!”", "So."]),
        ("Use e.g. Debian. See sec. Two of it.", ["Use e.g. Debian.", "See sec. Two of it."]),
        ("Z. B. hier ist z.B. Platz. Über allem.", ["Z. B. hier ist z.B. Platz.", "Über allem."]),
        ("Version 3.5 is out. 7 more came.", ["Version 3.5 is out. 7 more came."]),
        ("先保存。再关闭！“好。”对吗？", ["先保存。", "再关闭！", "“好。”对吗？"]),
        ("保存する。「はい」を押す。", ["保存する。", "「はい」を押す。"]),
        ("احفظ الملف. هل تم؟ نعم.", ["احفظ الملف.", "هل تم؟", "نعم."]),
        ("यह पहला है। यह दूसरा है।", ["यह पहला है।", "यह दूसरा है।"]),
        ("¿Listo? ¡Sí! Guárdelo.", ["¿Listo?", "¡Sí!", "Guárdelo."]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert split_sentences(text) == expected


def test_places_and_items() -> None:
    first, second = "The first sentence says where it is.", "The second one says what comes next."
    assert [(p.before, p.sentence) for p in continuations(7, f"{first} {second}")] == [
        (first, second)
    ]
    assert not continuations(7, f"{first} See http://a.org/b for what comes next.")
    assert not continuations(7, first) and not continuations(7, f"{first} Short.")
    words = [
        *("stone", "bread", "cloud", "river", "glass", "horse"),
        *("paper", "night", "green", "metal", "chair", "train"),
    ]
    texts = {
        100 * n: f"We speak of the {w} in this text now. Its {w} {v} {w[::-1]} is {w} of {v}."
        for n, (w, v) in enumerate(zip(words, reversed(words), strict=True))
    }
    made = continuation_items({"en": texts}, {"en": " "}, most=8)["en"]
    assert len(made) == 8
    assert made == continuation_items({"en": texts}, {"en": " "}, most=8)["en"]
    assert made != continuation_items({"en": texts}, {"en": " "}, most=8, seed=1)["en"]
    near = {n // 100: text for n, text in texts.items()}
    assert not continuation_items({"en": near}, {"en": " "}, most=8)["en"]
