"""The testbed's world: which things exist and which facts hold, in each language.

Countries, animals, foods and professions are real and shared by the languages. Places are invented
and shared; people are invented, and every language has its own, in proportion to its share of the
training text, so that a person's facts are seen about equally often in every language.
"""

import random
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import yaml

LANGUAGES = ("en", "zh", "vi")
# English has the largest share of the training tokens, as it has in Llama-2's.
SHARES = {"en": 0.45, "zh": 0.30, "vi": 0.25}
# In proportion to each language's number of documents (a Chinese one takes most tokens).
PEOPLE_PER_LANGUAGE = {"en": 700, "zh": 320, "vi": 300}
# A fact's exposure is log-uniform over this range, so that knowledge fades out gradually from
# well-known to hardly-known facts instead of splitting into trivial and impossible ones.
EXPOSURE_RANGE = (1.0, 6.0)
PERSON_RELATIONS = ("town", "job", "food", "pet", "hobby")
PLACE_RELATIONS = ("region", "product", "landmark")


@dataclass(frozen=True)
class Subject:
    """Something with facts: its name, how it is referred to, and ``{relation: value}``."""

    kind: str
    name: str
    gender: str  # "female", "male" or "thing": which pronouns it takes
    facts: dict[str, str] = field(hash=False)
    exposure: float = 1.0


@dataclass(frozen=True)
class World:
    """Everything one language can talk about.

    ``subjects[kind]`` lists the subjects; ``pools[kind, relation]`` the values a relation takes,
    which is where wrong options come from.
    """

    language: str
    index: int
    phrases: dict[str, Any]
    entities: dict[str, Any]
    subjects: dict[str, list[Subject]]
    pools: dict[tuple[str, str], list[str]]

    def words(self, key: str) -> list[str]:
        """The entries of one list of ``world.yaml`` in this language."""
        return [entry[self.index] for entry in self.entities[key]]


def _read(name: str) -> Any:
    return yaml.safe_load(files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _place_names(entities: dict[str, Any], index: int) -> list[str]:
    # "Whitebridge", 白桥镇, "Cầu Trắng": the same place under each language's own word order.
    patterns = ("{0}{1}", "{0}{1}镇", "{1} {0}")
    return [
        patterns[index].format(first[index], second[index])
        for first in entities["place_first"]
        for second in entities["place_second"]
    ]


def _people_names(phrases: dict[str, Any], language: str) -> list[tuple[str, str]]:
    """All (full name, gender) pairs, in a fixed order."""
    names = phrases["names"]
    found = []
    for gender in ("female", "male"):
        for given in names[gender]:
            for last in names["last"]:
                if language == "zh":
                    found.append((last + given, gender))
                elif language == "en":
                    found.append((f"{given} {last}", gender))
                else:
                    found.extend(
                        (f"{last} {middle} {given}", gender) for middle in names[f"middle_{gender}"]
                    )
    return found


def build(language: str, seed: int = 0) -> World:
    """The world as ``language`` tells it.

    Facts about shared things depend on ``seed`` alone, so they agree between languages.

    Raises:
        ValueError: ``language`` is none of the testbed's.
    """
    if language not in LANGUAGES:
        raise ValueError(
            f"the testbed's languages are {', '.join(LANGUAGES)}; got {language!r}. "
            "Use one of these, or another profile for other languages."
        )
    index = LANGUAGES.index(language)
    entities, phrases = _read("world.yaml"), _read(f"{language}.yaml")

    def word(key: str, i: int) -> str:
        return str(entities[key][i][index])

    subjects: dict[str, list[Subject]] = {
        "country": [
            Subject(
                "country",
                name[index],
                "thing",
                {"capital": capital[index], "continent": word("continents", continent)},
            )
            for name, capital, continent in entities["countries"]
        ],
        "animal": [
            Subject(
                "animal",
                name[index],
                "thing",
                {"kind": word("animal_kinds", kind), "home": word("animal_homes", home)},
            )
            for name, kind, home in entities["animals"]
        ],
        "ingredient": [
            Subject(
                "ingredient",
                name[index],
                "thing",
                {"kind": word("food_kinds", kind), "colour": word("colours", colour)},
            )
            for name, kind, colour in entities["ingredients"]
        ],
        "job": [
            Subject("job", name[index], "thing", {"workplace": place[index]})
            for name, place in entities["jobs"]
        ],
    }

    places = _place_names(entities, index)
    shared = random.Random(f"places-{seed}")
    subjects["place"] = []
    for name in places:
        facts = {
            "region": word("regions", shared.randrange(len(entities["regions"]))),
            "product": word("products", shared.randrange(len(entities["products"]))),
            "landmark": word("landmarks", shared.randrange(len(entities["landmarks"]))),
        }
        subjects["place"].append(Subject("place", name, "thing", facts, _exposure(shared)))

    own = random.Random(f"people-{language}-{seed}")
    values = {
        "town": places,
        "job": [job.name for job in subjects["job"]],
        "food": [dish[index] for dish in entities["dishes"]],
        "pet": [pet[index] for pet in entities["pets"]],
        "hobby": [hobby[index] for hobby in entities["hobbies"]],
    }
    chosen = own.sample(_people_names(phrases, language), PEOPLE_PER_LANGUAGE[language])
    subjects["person"] = [
        Subject(
            "person",
            name,
            gender,
            {relation: own.choice(values[relation]) for relation in PERSON_RELATIONS},
            _exposure(own),
        )
        for name, gender in chosen
    ]

    pools = {
        (kind, relation): sorted({s.facts[relation] for s in members})
        for kind, members in subjects.items()
        for relation in members[0].facts
    }
    return World(language, index, phrases, entities, subjects, pools)


def _exposure(rng: random.Random) -> float:
    low, high = EXPOSURE_RANGE
    return float(low * (high / low) ** rng.random())
