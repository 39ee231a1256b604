"""Pictures of an analysis: they show the floor, arrive whole and are equal for equal data."""

import numpy as np
import pytest

from alloop.analysis.distributions import compare_distributions
from alloop.analysis.halves import Comparison
from alloop.analysis.plots import (
    draw_attributions,
    draw_distributions,
    draw_energies,
    draw_rmsd_map,
    draw_spectra,
)
from alloop.analysis.spectrum import Spectrum
from alloop.errors import AnalysisError

SPECTRUM = Spectrum(np.linspace(0.0, 8000.0, 500), np.linspace(1.0, 2.0, 500))
COMPARISON = Comparison(0.9123, 0.90, 0.92, 0.9456, 0.9312, 0.9578, 8, 200)
VALUES = [np.linspace(1.0, 2.0, 50), np.linspace(1.1, 2.1, 50)]
TIMES = np.arange(5.0)


def spectra(path):
    draw_spectra(path, SPECTRUM, {"4D model": (SPECTRUM, COMPARISON)})


def rmsd_map(path):
    draw_rmsd_map(path, np.ones((5, 3)), (TIMES, TIMES[:3]), ("MD", "4D model"))


def distributions(path):
    names = [f"r{i}" for i in range(4)]
    results = compare_distributions(dict.fromkeys(names, VALUES), dict.fromkeys(names, VALUES))
    draw_distributions(path, results)


def energies(path):
    draw_energies(path, {"4D model": (TIMES, TIMES), "MD": (TIMES, 0.0 * TIMES)})


def attributions(path):
    draw_attributions(path, ["small", "large"], [0.1, -2.0], [0.1, 0.2], "rad")


PICTURES = [spectra, rmsd_map, distributions, energies, attributions]


@pytest.fixture
def readable(monkeypatch):
    """Let SVG files hold text as text."""
    monkeypatch.setitem(__import__("matplotlib").rcParams, "svg.fonttype", "none")


@pytest.mark.parametrize("draw", PICTURES, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_pictures_are_whole_files_and_equal_for_equal_data(draw, suffix, tmp_path):
    first, second = tmp_path / "new" / f"one.{suffix}", tmp_path / f"two.{suffix}"
    draw(first)
    draw(second)

    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml"}[suffix])
    assert {p.name for p in tmp_path.rglob("*")} == {"new", f"one.{suffix}", f"two.{suffix}"}


@pytest.mark.parametrize("draw", PICTURES, ids=lambda draw: draw.__name__)
def test_other_formats_are_refused(draw, tmp_path):
    with pytest.raises(AnalysisError, match=r"no picture format, want one of \.png, \.svg"):
        draw(tmp_path / "picture.txt")

    assert list(tmp_path.iterdir()) == []


def test_spectra_show_their_similarity_beside_the_floor(tmp_path, readable):
    spectra(tmp_path / "one.svg")

    text = (tmp_path / "one.svg").read_text()
    assert "4D model: similarity 0.912, floor 0.946 [0.931, 0.958]" in text
    assert "wavenumber / cm⁻¹" in text


def test_distributions_show_their_overlap_beside_the_floor(tmp_path, readable):
    distributions(tmp_path / "one.svg")

    text = (tmp_path / "one.svg").read_text()
    assert "overlap 0." in text
    assert ", floor 0." in text
    assert [f">r{i}<" in text for i in range(4)] == [True] * 4


def test_energies_are_in_kcal_per_mol_from_the_start(tmp_path, readable):
    """4 eV are 92.2 kcal/mol."""
    energies(tmp_path / "one.svg")

    text = (tmp_path / "one.svg").read_text()
    assert ">80<" in text
    assert ">100<" not in text
    assert "kcal/mol" in text


def test_the_largest_contribution_comes_first(tmp_path, readable):
    attributions(tmp_path / "one.svg")

    text = (tmp_path / "one.svg").read_text()
    assert text.index(">large<") < text.index(">small<")
    assert "contribution / rad" in text


def test_arrays_that_do_not_match_are_refused(tmp_path):
    with pytest.raises(AnalysisError, match=r"RMSD map: got shape \(5, 3\), want \(3, 5\)"):
        draw_rmsd_map(tmp_path / "a.png", np.ones((5, 3)), (TIMES[:3], TIMES), ("a", "b"))
    with pytest.raises(AnalysisError, match="errors of contributions"):
        draw_attributions(tmp_path / "a.png", ["x", "y"], [1.0, 2.0], [1.0], "rad")
    with pytest.raises(AnalysisError, match="4D: total energies"):
        draw_energies(tmp_path / "a.png", {"4D": (TIMES, TIMES[:2])})
    with pytest.raises(AnalysisError, match="got none to draw"):
        draw_distributions(tmp_path / "a.png", {})
