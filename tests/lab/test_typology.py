"""Distances between languages: what is shipped, how it is made, what is not known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crane_lab.cli.typology import LANGUAGES, SOURCES, distances_of
from crane_lab.store import ROOT
from crane_lab.texts.typology import FILE, KINDS, language_distances, script_of


@pytest.mark.parametrize("kind", KINDS)
def test_distances_are_symmetric_and_zero_to_oneself(kind: str) -> None:
    found = language_distances(LANGUAGES, kind)
    assert found.shape == (len(LANGUAGES), len(LANGUAGES))
    assert (found == found.T).all() and (found.diagonal() == 0).all() and (found >= 0).all()


def test_relatives_are_near() -> None:
    (from_dutch,) = language_distances(["nl", "de", "fr", "zh"], "genetic")[:1]
    assert list(np.argsort(from_dutch)) == [0, 1, 2, 3]
    scripts = language_distances(["ru", "uk", "pl"], "script")
    assert scripts[0, 1] == 0 and scripts[0, 2] == 1 and script_of("ja") == "Jpan"


def test_what_is_not_known_is_said() -> None:
    with pytest.raises(ValueError, match="'xx' is known"):
        language_distances(["en", "xx"], "genetic")
    with pytest.raises(ValueError, match="'en' comes twice: expected each language once"):
        language_distances(["en", "de", "en"], "genetic")
    with pytest.raises(ValueError, match="'taste'"):
        language_distances(["en"], "taste")
    with pytest.raises(ValueError, match="'xx' is not known"):
        script_of("xx")


def test_every_language_with_texts_has_distances() -> None:
    assert {file.stem for file in (ROOT / "data" / "texts").glob("??.txt")} == set(LANGUAGES)
    table = pd.read_csv(ROOT / FILE)
    assert len(table) == len(LANGUAGES) * (len(LANGUAGES) - 1) // 2 and table.notna().all().all()


def test_distances_are_made_from_vectors(tmp_path: Path) -> None:
    langs = np.array(["eng", "deu", "zho"])
    for name in {name for name, _ in SOURCES.values()}:
        begins = ("S_", "P_") if name == "feature_predictions" else ("F", "G")
        feats = np.array([f"{letter}{i}" for letter in begins for i in range(2)])
        data = np.array([[1, 0, 1, 0], [1, 0, 1, 1], [0, 1, 0, 1]], np.float32)[:, :, None]
        np.savez(tmp_path / f"{name}.npz", langs=langs, feats=feats, data=data)
    found = distances_of(tmp_path, ["en", "de", "zh"]).set_index(["a", "b"])
    assert found.loc[("de", "en"), "syntactic"] == pytest.approx(0)
    assert found.loc[("de", "en"), "phonological"] == pytest.approx(1 - 1 / np.sqrt(2))
    assert found.loc[("en", "zh"), "genetic"] == pytest.approx(1)
    with pytest.raises(ValueError, match="'fr'"):
        distances_of(tmp_path, ["en", "fr"])
