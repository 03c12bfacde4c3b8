"""Questions about the world in many languages, from the names and facts of Unicode's CLDR.

CLDR, which Babel carries, says which time zone's city lies in which country, which language is
official and which currency is legal tender there, and which script a language is written in; and it
names all of these in every language. So one fact is one item in each language: the same subject,
the same options at the same places, in a frame of colons that needs no article and no inflection.

What a name gives away is no knowledge ("Poland: Polish zloty"): facts whose subject and answer look
alike in any of the languages are left out, and no wrong option looks like the subject.
"""

from __future__ import annotations

import datetime
import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from babel import Locale
from babel.core import get_global
from babel.languages import get_official_languages, get_territory_language_info
from babel.localedata import locale_identifiers
from babel.numbers import get_territory_currencies

#: The day that the facts hold on.
DAY = datetime.date(2026, 1, 1)
OPTIONS = 4
_LETTERS = re.compile(r"[^\W\d_]+")
#: Names that would look odd behind a colon.
_AWKWARD = re.compile(r"[(（]| [-–—] |о-ва")
#: Scripts of short words, in which two signs in a row are as telling as four letters.
_SHORT = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True)
class Frame:
    """How a language asks: what each kind of thing is called, and the signs between.

    `between` stands behind the subject, `gap` between a colon and what it announces.
    """

    city: str
    country: str
    language: str
    currency: str
    script: str
    colon: str = ": "
    between: str = ". "

    @property
    def gap(self) -> str:
        """What separates the question from an option: a space, or nothing."""
        return " " if self.colon.endswith(" ") else ""

    def ask(self, kind: str, subject: str, wanted: str) -> str:
        """The question, up to the colon that the answer stands behind."""
        named = f"{getattr(self, kind)}{self.colon}{subject}{self.between}"
        return f"{named}{getattr(self, wanted)}{self.colon}".rstrip()


#: language -> frame.
FRAMES: dict[str, Frame] = {
    "ar": Frame("المدينة", "البلد", "اللغة", "العملة", "نظام الكتابة"),
    "ca": Frame("Ciutat", "País", "Llengua", "Moneda", "Escriptura"),
    "cs": Frame("Město", "Země", "Jazyk", "Měna", "Písmo"),
    "da": Frame("By", "Land", "Sprog", "Valuta", "Skriftsystem"),
    "de": Frame("Stadt", "Land", "Sprache", "Währung", "Schrift"),
    "el": Frame("Πόλη", "Χώρα", "Γλώσσα", "Νόμισμα", "Σύστημα γραφής"),
    "en": Frame("City", "Country", "Language", "Currency", "Script"),
    "es": Frame("Ciudad", "País", "Idioma", "Moneda", "Escritura"),
    "fr": Frame("Ville", "Pays", "Langue", "Monnaie", "Écriture", " : "),
    "hu": Frame("Város", "Ország", "Nyelv", "Pénznem", "Írásrendszer"),
    "id": Frame("Kota", "Negara", "Bahasa", "Mata uang", "Aksara"),
    "it": Frame("Città", "Paese", "Lingua", "Valuta", "Scrittura"),
    "ja": Frame("都市", "国", "言語", "通貨", "文字", "：", "。"),
    "ko": Frame("도시", "나라", "언어", "통화", "문자"),
    "nl": Frame("Stad", "Land", "Taal", "Munteenheid", "Schrift"),
    "no": Frame("By", "Land", "Språk", "Valuta", "Skriftsystem"),
    "pl": Frame("Miasto", "Kraj", "Język", "Waluta", "Pismo"),
    "pt": Frame("Cidade", "País", "Idioma", "Moeda", "Escrita"),
    "ro": Frame("Oraș", "Țară", "Limbă", "Monedă", "Sistem de scriere"),
    "ru": Frame("Город", "Страна", "Язык", "Валюта", "Письменность"),
    "sv": Frame("Stad", "Land", "Språk", "Valuta", "Skriftsystem"),
    "tr": Frame("Şehir", "Ülke", "Dil", "Para birimi", "Yazı sistemi"),
    "uk": Frame("Місто", "Країна", "Мова", "Валюта", "Писемність"),
    "vi": Frame("Thành phố", "Quốc gia", "Ngôn ngữ", "Tiền tệ", "Chữ viết"),
    "zh": Frame("城市", "国家", "语言", "货币", "文字", "：", "。"),
}

#: Territories that CLDR lists beside states, and those whose status is disputed.
_NO_STATES = """
    AC AI AQ AS AW AX BL BM BQ BV CC CK CP CQ CW CX DG EA EH EU EZ FK FO GF GG GI GL GP GS GU HK
    HM IC IM IO JE KY MF MO MP MQ MS NC NF NU PF PM PN PR PS RE SH SJ SX TA TC TF TK TW UM UN VA
    VG VI WF XA XB XK YT ZZ
"""
#: Zones of the states that have many, whose cities are known best.
_CHOSEN = """
    America/Buenos_Aires America/Mendoza America/Ushuaia Australia/Adelaide Australia/Brisbane
    Australia/Darwin Australia/Melbourne Australia/Perth Australia/Sydney America/Fortaleza
    America/Manaus America/Recife America/Sao_Paulo America/Halifax America/Toronto
    America/Vancouver America/Winnipeg America/Santiago Asia/Shanghai Asia/Urumqi
    Africa/Lubumbashi America/Guayaquil Asia/Jakarta Asia/Makassar Asia/Almaty Asia/Aqtobe
    America/Cancun America/Monterrey America/Tijuana Asia/Kuala_Lumpur Asia/Kuching
    Pacific/Auckland Pacific/Port_Moresby Europe/Lisbon Europe/Kaliningrad Europe/Moscow
    Asia/Irkutsk Asia/Novosibirsk Asia/Vladivostok Asia/Yekaterinburg Europe/Kiev
    America/Anchorage America/Chicago America/Denver America/Detroit America/Los_Angeles
    America/New_York America/Phoenix Pacific/Honolulu Asia/Samarkand Asia/Tashkent Europe/Berlin
    Europe/Madrid Asia/Nicosia Asia/Ulaanbaatar
"""
#: Zones named for an island, a people or a whole state, no city.
_NO_CITIES = """
    Asia/Jerusalem Europe/Vatican Indian/Mahe Indian/Mauritius Indian/Maldives Indian/Comoro
    Pacific/Fiji Pacific/Efate Pacific/Tongatapu Pacific/Guadalcanal Pacific/Nauru Pacific/Palau
    Africa/Sao_Tome
"""
#: Other countries with a city of the same name: they are no wrong options.
_NAMESAKES = {"Africa/Tripoli": {"LB"}, "America/Santiago": {"CU", "DO", "ES", "PA", "PH"}}
#: Languages that are written in a second script, or that CLDR gives the more rarely used one of.
_TWO_SCRIPTS = """
    az bm bs chr cu ff ha ja kk kok ks ku ky lad ms mn mni no pa sat sd shi sr su tg tk tt tzm ug
    uz vai yue zgh zh rm jv ban
"""


#: Countries whose first time zone, which tells where they lie, is named for another part.
_REGIONS = {
    **dict.fromkeys(("ES", "IS", "PT"), "Europe"),
    **dict.fromkeys(("CL", "EC"), "America"),
    **dict.fromkeys(("CV", "KM", "MG", "MU", "SC"), "Africa"),
    **{"AU": "Pacific", "MV": "Asia"},
}
#: Languages that count as one where another is the answer: much the same when named or heard.
_ONE = (
    {"sr", "hr", "bs"},
    {"hi", "ur"},
    {"id", "ms"},
    {"fa", "tg", "ps"},
    {"nb", "no", "nn", "da"},
    {"fil", "tl"},
    {"rn", "rw"},
    {"bg", "mk"},
    {"ro", "mo"},
)
#: States that have changed their official language since CLDR took notice.
_CHANGED = frozenset(("BF", "ML", "NE"))
#: Money that circulates in a country without being legal tender there.
_CIRCULATES = {"NP": {"INR"}, "SZ": {"ZAR"}}
#: How many facts of a relation may have the same answer, where a few answers are most of all.
_MOST = {"country.currency": 8, "country.language": 12, "language.script": 6}


@dataclass(frozen=True)
class Fact:
    """Codes of what is asked about, of the right option, and of wrong ones, likelier ones first."""

    relation: str  # "<kind of the subject>.<kind of the answer>"
    subject: str
    answer: str
    wrong: tuple[tuple[str, ...], ...]

    @property
    def kinds(self) -> tuple[str, str]:
        """What the subject is, and what the answer is."""
        kind, wanted = self.relation.split(".")
        return kind, wanted

    @property
    def cluster(self) -> str:
        """The same in every language, and in both directions."""
        things = sorted(zip(self.kinds, (self.subject, self.answer), strict=True))
        return ".".join(f"{kind}-{code.replace('/', '_')}" for kind, code in things)


# --------------------------------------------------------------------------------------- names


@cache
def _table(kind: str, language: str) -> dict[str, str]:
    """A language's names of the things of a kind, by code; of cities only what needs one."""
    locale = Locale(language)
    if kind == "city":
        zones = locale.time_zones
        return {str(zone): zones[zone]["city"] for zone in zones if "city" in zones[zone]}
    table = {
        "country": locale.territories,
        "language": locale.languages,
        "currency": locale.currencies,
        "script": locale.scripts,
    }[kind]
    return {str(code): str(table[code]) for code in table}


def name(kind: str, code: str, language: str) -> str:
    """What a language calls a thing, "" if nothing; a city by its time zone, as CLDR does, then."""
    other = code.split("/")[-1].replace("_", " ") if kind == "city" else ""
    return _table(kind, language).get(code, other)


@cache
def _words(text: str) -> tuple[str, ...]:
    """The words of a name, without accents, capitals and the Arabic article."""
    decomposed = unicodedata.normalize("NFD", text.casefold())
    bare = "".join(c for c in decomposed if not unicodedata.combining(c))
    words: list[str] = _LETTERS.findall(unicodedata.normalize("NFC", bare))
    return tuple(word.removeprefix("ال") for word in words)


@cache
def alike(first: str, second: str) -> bool:
    """Whether one of two names gives something of the other away.

    It does if two words begin with the same three letters, if a word has another's first four
    somewhere, or if two signs of Chinese, Kana or Hangul are the same in a row.
    """
    one, other = _words(first), _words(second)
    if _SHORT.search(first + second):
        pairs = {word[i : i + 2] for word in one for i in range(len(word) - 1)}
        return any(word[i : i + 2] in pairs for word in other for i in range(len(word) - 1))
    return any(
        a[:3] == b[:3] or (len(a) > 3 and a[:4] in b) or (len(b) > 3 and b[:4] in a)
        for a in one
        for b in other
        if min(len(a), len(b)) > 2
    )


class _Compared:
    """The names that a set of languages has, and what looks alike in any of them."""

    def __init__(self, languages: Sequence[str]) -> None:
        self.languages = tuple(languages)
        self._alike: dict[tuple[tuple[str, str], tuple[str, str]], bool] = {}

    def usable(self, kind: str, codes: Iterable[str]) -> list[str]:
        """The codes whose name in every language is one of its own, without brackets and dashes."""
        codes = sorted(set(codes))
        said = {x: [name(kind, code, x) for code in codes] for x in self.languages}
        times = {x: Counter(names) for x, names in said.items()}
        return [
            code
            for place, code in enumerate(codes)
            if all(
                names[place] and times[x][names[place]] == 1 and not _AWKWARD.search(names[place])
                for x, names in said.items()
            )
        ]

    def alike(self, one: tuple[str, str], other: tuple[str, str]) -> bool:
        """Whether two things, each a kind and a code, look `alike` in any language."""
        key = (one, other)
        if key not in self._alike:
            self._alike[key] = any(alike(name(*one, x), name(*other, x)) for x in self.languages)
        return self._alike[key]


# --------------------------------------------------------------------------------------- facts


def facts(languages: Sequence[str]) -> list[Fact]:
    """What CLDR knows that can be asked for in all languages, by relation; always in one order.

    Left out are facts whose answer looks like the subject in any of the languages.
    """
    names = _Compared(languages)
    found = [*_cities(names), *_official(names), *_tender(names), *_written(names)]
    return [
        fact
        for fact in found
        if not names.alike((fact.kinds[0], fact.subject), (fact.kinds[1], fact.answer))
    ]


def _zones() -> dict[str, str]:
    """The country of each city that a time zone is named for, by CLDR's name of the zone."""
    current, country_of = get_global("zone_aliases"), get_global("zone_territories")
    # In Russian every city has a name, so these are all of CLDR's zones.
    countries = {zone: country_of.get(current.get(zone, zone)) for zone in _table("city", "ru")}
    several = Counter(countries.values())
    return {
        zone: country
        for zone, country in sorted(countries.items())
        if country is not None
        and country not in _NO_STATES.split()
        and zone.count("/") == 1
        and zone not in _NO_CITIES.split()
        and (several[country] == 1 or zone in _CHOSEN.split())
    }


@cache
def _regions() -> dict[str, str]:
    """The part of the world that each state lies in."""
    zones = get_global("territory_zones")
    return {
        country: _REGIONS.get(country, zones[country][0].split("/")[0])
        for country in sorted(zones)
        if country.isalpha() and country not in _NO_STATES.split()
    }


def _near_and_far(
    codes: Iterable[str], country: str, countries: Mapping[str, Iterable[str]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Options parted by whether any of their `countries` lies where a country does."""
    region, codes = _regions(), list(codes)
    near = {code for code in codes if any(region[x] == region[country] for x in countries[code])}
    return tuple(x for x in codes if x in near), tuple(x for x in codes if x not in near)


def _cities(names: _Compared) -> list[Fact]:
    """Which country a city lies in, and which city lies in a country."""
    zones, states = _zones(), names.usable("country", _regions())
    cities = [
        city
        for city in names.usable("city", zones)
        if zones[city] in states and not names.alike(("city", city), ("country", zones[city]))
    ]
    there, back = [], []
    for city in cities:
        country = zones[city]
        namesakes = {country} | _NAMESAKES.get(city, set())
        others = [x for x in states if x not in namesakes]
        wrong = _near_and_far(others, country, {x: [x] for x in states})
        there.append(Fact("city.country", city, country, wrong))
        others = [x for x in cities if country not in {zones[x]} | _NAMESAKES.get(x, set())]
        wrong = _near_and_far(others, country, {x: [zones[x]] for x in cities})
        back.append(Fact("country.city", country, city, wrong))
    return there + back


def _official(names: _Compared) -> list[Fact]:
    """The only official language of a country; wrong ones are hardly spoken there."""
    official = {}
    for country in names.usable("country", set(_regions()) - _CHANGED):
        listed = get_official_languages(country, regional=True, de_facto=True)
        if len(listed) == 1 and "_" not in listed[0]:
            official[country] = listed[0]

    def spoken(country: str, language: str) -> set[str]:
        found = {x.split("_")[0] for x in get_territory_language_info(country)} | {language}
        return found.union(*(group for group in _ONE if group & found))

    return _of_countries(names, "language", official, spoken)


def _tender(names: _Compared) -> list[Fact]:
    """The only legal tender of a country; wrong is none that it ever had, nor the US dollar."""
    tender = {}
    for country in names.usable("country", _regions()):
        listed = get_territory_currencies(country, DAY, tender=True)
        if len(listed) == 1 and listed[0] != "USD":
            tender[country] = listed[0]
    ever = get_global("territory_currencies")

    def known(country: str, currency: str) -> set[str]:
        return {entry[0] for entry in ever[country]} | _CIRCULATES.get(country, set())

    return _of_countries(names, "currency", tender, known)


def _of_countries(
    names: _Compared,
    kind: str,
    sole: Mapping[str, str],
    right: Callable[[str, str], set[str]],
) -> list[Fact]:
    """What each country has one of; nothing that is `right` of it in any way is a wrong option."""
    where = defaultdict(list)
    for country, answer in sole.items():
        where[answer].append(country)
    usable, found = names.usable(kind, where), []
    for country, answer in sole.items():
        ruled_out = right(country, answer)
        others = [x for x in usable if x not in ruled_out]
        if answer in usable:
            wrong = _near_and_far(others, country, where)
            found.append(Fact(f"country.{kind}", country, answer, wrong))
    return found


def _written(names: _Compared) -> list[Fact]:
    """The script of a language that is official somewhere and has one script only."""
    scripts = defaultdict(set)
    for key, full in get_global("likely_subtags").items():
        language, script = full.split("_")[:2]
        if key.split("_")[0] == language:
            scripts[language].add(script)
    spoken = {
        language
        for country in _regions()
        for language, about in get_territory_language_info(country).items()
        if about["official_status"] in ("official", "de_facto_official")
        and float(about["population_percent"] or 0) >= 20
    }
    only = {
        language: next(iter(scripts[language]))
        for language in sorted(spoken - set(_TWO_SCRIPTS.split()))
        if len(scripts[language]) == 1
    }
    usable = names.usable("script", only.values())
    # Such as Hindi in Latin letters, for which CLDR has a locale.
    seen = {tuple(x.split("_")[:2]) for x in locale_identifiers()} | {("ur", "Deva")}
    return [
        Fact("language.script", x, only[x], (tuple(y for y in others if (x, y) not in seen),))
        for x in names.usable("language", only)
        if only[x] in usable and (others := [y for y in usable if y != only[x]])
    ]


# --------------------------------------------------------------------------------------- items


def fact_items(languages: Sequence[str], seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """`{language: items}` as `crane_lab.engines.tasks` reads them, one per fact and language.

    The items of all languages are parallel: same facts, same options in the same places. Answers
    stand equally often in each place. Deterministic given Babel's version and the seed.
    """
    names, draw = _Compared(languages), random.Random(seed)
    chosen: list[tuple[Fact, list[str]]] = []
    times = Counter[tuple[str, str]]()
    for fact in sorted(facts(languages), key=lambda fact: (fact.relation, draw.random())):
        wrong = _options(fact, names, draw)
        most = _MOST.get(fact.relation)
        if len(wrong) == OPTIONS - 1 and times[fact.relation, fact.answer] != most:
            times[fact.relation, fact.answer] += 1
            chosen.append((fact, wrong))
    places = [index % OPTIONS for index in range(len(chosen))]
    draw.shuffle(places)
    return {
        x: [
            _item(f"facts_{x}-{index:04d}", fact, wrong, place, x)
            for index, ((fact, wrong), place) in enumerate(zip(chosen, places, strict=True))
        ]
        for x in languages
    }


def _options(fact: Fact, names: _Compared, draw: random.Random) -> list[str]:
    """Three wrong options, no one like the subject, and no two places like each other."""
    kind, wanted = fact.kinds
    subject, taken = (kind, fact.subject), [(wanted, fact.answer)]
    for new in ((wanted, code) for tier in fact.wrong for code in draw.sample(tier, len(tier))):
        if len(taken) == OPTIONS:
            break
        # Names of languages, scripts and currencies have a word in common in some language.
        others = taken if wanted in ("city", "country") else []
        if not any(names.alike(x, new) for x in (subject, *others)):
            taken.append(new)
    return [code for _, code in taken[1:]]


def _item(id_: str, fact: Fact, wrong: Sequence[str], place: int, language: str) -> dict[str, Any]:
    kind, wanted = fact.kinds
    codes = [*wrong[:place], fact.answer, *wrong[place:]]
    subject = name(kind, fact.subject, language)
    return {
        "id": id_,
        "passage": "",
        "question": FRAMES[language].ask(kind, subject, wanted),
        "relation": fact.relation,
        "cluster": fact.cluster,
        "options": [name(wanted, code, language) for code in codes],
        "answer": place,
    }
