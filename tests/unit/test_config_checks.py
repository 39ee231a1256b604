"""What must go together in a campaign file, each with its reason, at the key that can mend it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from alloop.cli.main import main
from alloop.config.load import LoadedCampaign, load, load_text
from alloop.errors import ConfigError

HEAD = """\
schema: 1
campaign: {name: test}
"""
SYSTEMS = """\
systems:
  etoh: {structure: ethanol.xyz}
"""
TIERS = """\
tiers:
  - {id: gfn, method: {engine: tblite}, budget: {labels: 1000}}
"""
GOOD = HEAD + SYSTEMS + TIERS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("structures")
    for name, atoms in {
        "ethanol": molecule("CH3CH2OH"),
        "methyl": molecule("CH3"),
        "hydronium": Atoms(
            "OH3", [[0, 0, 0.1], [0.95, 0, -0.2], [-0.5, 0.8, -0.2], [-0.5, -0.8, -0.2]]
        ),
        "co2": molecule("CO2"),
        "argon": Atoms("Ar"),
        "francium": Atoms("FrF", [[0, 0, 0], [0, 0, 2.5]]),
    }.items():
        write(folder / f"{name}.xyz", atoms)
    return folder


def read(text: str, folder: Path) -> LoadedCampaign:
    return load_text(text, folder / "c.yaml")


def complaints(text: str, folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, folder)
    return [line.removeprefix(f"{folder / 'c.yaml'}:") for line in caught.value.problems]


def complaint(text: str, folder: Path) -> str:
    (line,) = complaints(text, folder)
    return line


def test_a_minimal_file_is_a_whole_campaign(folder: Path) -> None:
    loaded = read(GOOD, folder)
    assert loaded.structures["etoh"].formula == "C2H6O"
    assert loaded.directory == folder / "runs" / "test"
    assert all(route.systems == ("etoh",) for route in loaded.config.explore.routes)
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("system", "line"),
    [
        ("{structure: methyl.xyz}", "4:3  systems.x.multiplicity: multiplicity 1 is im"),
        ("{structure: methyl.xyz, multiplicity: 3}", "4:30  systems.x.multiplicity: "),
        ("{structure: hydronium.xyz}", "4:3  systems.x.multiplicity: "),
        ("{structure: ethanol.xyz, charge: 1}", "4:3  systems.x.multiplicity: "),
        ("{structure: argon.xyz}", "4:7  systems.x.structure: a single atom feels no forces"),
        ("{structure: francium.xyz}", "4:7  systems.x.structure: GFN2-xTB describes H to Rn only"),
        ("{structure: none.xyz}", "4:7  systems.x.structure: "),
    ],
)  # fmt: skip
def test_impossible_systems(system: str, line: str, folder: Path) -> None:
    assert complaint(f"{HEAD}systems:\n  x: {system}\n{TIERS}", folder).startswith(line)


def test_possible_ions_and_radicals(folder: Path) -> None:
    systems = """\
systems:
  methyl: {structure: methyl.xyz, multiplicity: 2}
  hydronium: {structure: hydronium.xyz, charge: 1}
  quartet: {structure: ethanol.xyz, charge: -1, multiplicity: 4}
"""
    structures = read(HEAD + systems + TIERS, folder).structures
    assert (structures["hydronium"].charge, structures["quartet"].multiplicity) == (1, 4)


def test_states_that_the_potential_cannot_tell_apart(folder: Path) -> None:
    systems = """\
systems:
  a: {structure: ethanol.xyz}
  b: {structure: ethanol.xyz, multiplicity: 3}
  c: {structure: ethanol.xyz}
"""
    line = complaint(HEAD + systems + TIERS, folder)
    assert line.startswith("5:3  systems.b: same atoms as 'a' but another charge or multiplicity")


def test_gfn_limits_do_not_bind_other_methods(folder: Path) -> None:
    systems = "systems:\n  x: {structure: francium.xyz}\n"
    tiers = TIERS.replace(
        "engine: tblite", "engine: ase, calculator: 'ase.calculators.lj:X', name: lj"
    )
    assert read(HEAD + systems + tiers, folder)


def test_calculators_and_engines_must_be_installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiers = TIERS.replace("engine: tblite", "engine: ase, calculator: 'nowhere.x:X', name: lj")
    line = complaint(HEAD + SYSTEMS + tiers, folder)
    assert line == "6:37  tiers.gfn.method.calculator: no package 'nowhere' is installed here"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = complaint(GOOD.replace("tblite", "xtb"), folder)
    assert line == "6:24  tiers.gfn.method.engine: xtb is not installed: pip install 'alloop[xtb]'"


def test_the_published_models_know_few_elements_and_no_charge(folder: Path) -> None:
    ani = TIERS.replace("engine: tblite", "engine: ani")
    assert read(HEAD + SYSTEMS + ani, folder)
    line = complaint(HEAD + "systems:\n  x: {structure: francium.xyz}\n" + ani, folder)
    assert line.startswith("4:7  systems.x.structure: ANI-1ccx describes H, C, N, O only")
    charged = "systems:\n  h: {structure: hydronium.xyz, charge: 1}\n"
    line = complaint(HEAD + charged + ani, folder)
    assert line.startswith("4:3  systems.h: ANI-1ccx knows neutral closed shells only")


def routes(*each: str) -> str:
    return f"explore: {{routes: [{', '.join(f'{{{one}}}' for one in each)}]}}"


def test_the_method_must_know_charge_and_spin(folder: Path) -> None:
    systems = """\
systems:
  m: {structure: methyl.xyz, multiplicity: 2}
  h: {structure: hydronium.xyz, charge: 1}
"""
    assert read(HEAD + systems + TIERS, folder)
    line = complaint(HEAD + systems + TIERS.replace("tblite", "xtb"), folder)
    assert line.startswith("7:24  tiers.gfn.method.engine: xtb cannot polarise spins, and m has")
    method = "engine: ase, name: lj, calculator: 'ase.calculators.lj:X'"
    told = [("kwargs: {q: '{charge}'}", "multiplicity"), ("info: {s: '{multiplicity}'}", "charge")]
    for words, missing in told:
        tiers = TIERS.replace("engine: tblite", f"{method}, {words}")
        line = complaint(HEAD + systems + tiers, folder)
        assert line.startswith("7:15  tiers.gfn.method: nothing tells the calculator that ")
        assert f"'{{{missing}}}' in kwargs or info" in line
    both = ", ".join(words for words, _ in told)
    assert read(HEAD + systems + TIERS.replace("engine: tblite", f"{method}, {both}"), folder)


@pytest.mark.parametrize(
    ("addition", "line"),
    [
        ("committee: [{id: a, members: 1}, {id: b, members: 1}]",
         "7:1  committee: 2 in all: a committee needs at least 3"),
        (routes("id: a, timestep: 1.25 fs"),
         "7:28  explore.routes.a.timestep: 1.25 fs is too long for etoh: a bond to hydrogen"),
        (routes("id: a, systems: [eto]"),
         "7:38  explore.routes.a.systems[0]: no system is called 'eto'; did you mean 'etoh'?"),
        (routes("id: a, record_every: 1.3 fs"),
         "7:28  explore.routes.a.record_every: 1.3 fs is no multiple of the time step, 0.5 fs"),
        (routes("id: a, record_every: 0.1 fs"),
         "7:28  explore.routes.a.record_every: 0.1 fs is no multiple"),
        (routes("id: a, record_every: 1e-9 fs"),
         "7:28  explore.routes.a.record_every: 1e-09 fs is no multiple"),
        (routes("id: a, record_every: 3 ps"),
         "7:20  explore.routes.a.duration: 2000 fs ends before the first frame, 3000 fs"),
        (routes("id: a, duration: 10.3 fs"),
         "7:28  explore.routes.a.duration: 10.3 fs is no multiple"),
        (routes("id: a, ensemble: nve, friction: 1 /ps"),
         "7:43  explore.routes.a.friction: has no effect in nve"),
        (routes("id: a, temperature: [1 K, 2 K, 3 K, 4 K], replicas: 3"),
         "7:63  explore.routes.a.replicas: 4 temperatures need as many replicas, got 3"),
        (routes("id: a, replicas: 2", "id: b, replicas: 1"),
         "7:11  explore.routes: no route has 3 replicas"),
        (routes("id: a", "id: a"), "7:29  explore.routes.a: this id is used twice"),
        ("explore: {initial: {amplitude: 0.1 A}}",
         "7:21  explore.initial.amplitude: has no effect with sampler wigner"),
        ("explore: {initial: {sampler: rattle, temperature: 9 K}}",
         "7:38  explore.initial.temperature: has no effect with sampler rattle"),
        ("explore: {initial: {frames: 10}}\nselect: {validation_fraction: 0.3}",
         "7:21  explore.initial.frames: 10 leave 7 to train on, want at least 8"),
        ("explore: {initial: {frames: 951}}",
         "6:50  tiers.gfn.budget.labels: 1000 labels do not last for the initial set (951) and one"
         " generation (50): want at least 1001"),
        ("select: {per_generation: 2}",
         "7:10  select.per_generation: 2 for each system, less 0.2 of them for audit"),
        ("select: {audit_fraction: 0.6, validation_fraction: 0.4}",
         "7:10  select.audit_fraction: with 0.4 for validation nothing is left"),
        ("spacetime: {}\n" + routes("id: a", "id: b"),
         "7:1  spacetime: needs a route with 'ensemble: nve'"),
        ("spacetime: {}\n" + routes("id: b, ensemble: nve, record_every: 2.5 fs"),
         "8:43  explore.routes.b.record_every: 2.5 fs is too coarse for a 4D cutoff of 10 fs: at"
         " most 2 fs"),
        ("spacetime: {}\n" + routes("id: b, ensemble: nve, duration: 9.5 fs"),
         "8:43  explore.routes.b.duration: 9.5 fs is shorter than the 4D cutoff, 10 fs"),
        ("spacetime: {cutoff: 20 fs, probe: {duration: 15 fs}}",
         "7:36  spacetime.probe.duration: 15 fs is shorter than one segment, 20 fs"),
        ("spacetime: {probe: on}",
         "7:13  spacetime.probe: want a section with keys, got 'on'"),
        ("spacetime: {probe: {replica: 3}}",
         "7:21  spacetime.probe.replica: unknown key; did you mean 'replicas'?"),
        ("spacetime: {probe: {quantile: 1.0}}",
         "7:21  spacetime.probe.quantile: must be less than 1"),
        ("stop: {for_generations: 21}",
         "7:8  stop.for_generations: 21 in a row never happen within 20"),
        ("train: {force_weight: 0, energy_weight: 0}",
         "7:26  train.energy_weight: energy_weight and force_weight are both 0"),
        ("committee: [{id: a, size: pape}]",
         "7:21  committee.a.size: ani has no size 'pape', want one of small, ani1x"),
        ("committee: [{id: a, kind: schnet, settings: {cutof: 4.0}}]",
         "7:35  committee.a.settings: schnet has no setting 'cutof', want one of features,"),
        ("committee: [{id: a, kind: schnet, settings: {features: wide}}]",
         "7:35  committee.a.settings: setting features of schnet is 'wide', want one like 64"),
        ("committee: [{id: a, kind: schnet, pretrained: ANI-1x}]",
         "7:35  committee.a.pretrained: ANI-1x are weights of kind ani, not of schnet"),
        ("committee: [{id: a, size: ani1x, pretrained: ANI-1x}]",
         "7:34  committee.a.pretrained: the shape is that of ANI-1x: leave out size"),
        ("committee: [{id: a, freeze: [auto]}]",
         "7:21  committee.a.freeze: is for pretrained weights, and these members start from"),
        ("committee: [{id: a, pretrained: ANI-1x, freeze: ['(']}]",
         "7:41  committee.a.freeze: '(' is no regular expression: missing ), unterminated"),
        ("train: {direction_weight: 1.0}",
         "7:9  train.direction_weight: only newtonnet has latent forces, and members ani are of"),
        ("site: locale", "7:1  site: 'locale' is neither a site of alloop ("),
        ("tires: 1", "7:1  tires: unknown key; did you mean 'tiers'?"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(addition: str, line: str, folder: Path) -> None:
    assert complaint(f"{GOOD}{addition}\n", folder).startswith(line)


@pytest.mark.parametrize(
    "addition",
    [
        "committee: [{id: a, members: 1}, {id: b, members: 2}]",
        "explore: {routes: [{id: a, timestep: 1 fs}]}",
        "explore: {routes: [{id: a, timestep: 0.3 fs, record_every: 0.9 fs}]}",
        "explore: {routes: [{id: a, replicas: 3}, {id: b, replicas: 20}]}",
        "explore: {initial: {frames: 950}}",
        "explore: {initial: {sampler: rattle, amplitude: 0.1 A}}",
        "select: {per_generation: 3}",
        "spacetime: {}\nexplore: {routes: [{id: a}, {id: b, ensemble: nve, record_every: 2 fs}]}",
        "spacetime: {cutoff: 500 fs}",
        "spacetime: {probe: off}",
        "spacetime: {probe: {duration: 10 fs, rounds: 0}}",
        "site: inprocess",
        "site: ./c.site",
    ],
)
def test_what_just_goes_together(addition: str, folder: Path) -> None:
    (folder / "c.site").touch()
    assert read(f"{GOOD}{addition}\n", folder)


def test_without_hydrogen_longer_steps_are_right(folder: Path) -> None:
    systems = "systems:\n  co2: {structure: co2.xyz}\n"
    assert read(HEAD + systems + TIERS + routes("id: a, timestep: 2 fs"), folder).warnings == ()
    line = complaint(HEAD + systems + TIERS + routes("id: a, timestep: 5 fs"), folder)
    assert "5 fs is too long for any molecule" in line


def test_a_step_counts_for_the_systems_of_its_route_only(folder: Path) -> None:
    systems = "systems:\n  co2: {structure: co2.xyz}\n  etoh: {structure: ethanol.xyz}\n"
    text = HEAD + systems + TIERS + routes("id: a, timestep: 2 fs, systems: [co2]")
    (warning,) = read(text, folder).warnings
    assert warning.endswith("systems.etoh: no route starts from it: only its initial frames count")


def test_a_coarse_step_is_worth_a_warning(folder: Path) -> None:
    (warning,) = read(GOOD + routes("id: a, timestep: 1 fs"), folder).warnings
    assert "7:28  explore.routes.a.timestep: 1 fs is coarse for bonds to hydrogen" in warning


def test_more_frames_than_trajectories_offer_is_worth_a_warning(folder: Path) -> None:
    assert read(f"{GOOD}select: {{per_generation: 160}}", folder).warnings == ()
    (warning,) = read(f"{GOOD}select: {{per_generation: 161}}", folder).warnings
    assert "7:10  select.per_generation: 161 frames are more than the 160" in warning
    (warning,) = read(GOOD + routes("id: a, record_every: 1 ps"), folder).warnings
    assert "50 frames are more than the 48" in warning


def test_budgets_and_shares_are_for_all_systems_together(folder: Path) -> None:
    systems = "systems:\n  co2: {structure: co2.xyz}\n  etoh: {structure: ethanol.xyz}\n"
    text = HEAD + systems + TIERS
    assert read(f"{text}explore: {{initial: {{frames: 475}}}}", folder)
    line = complaint(f"{text}explore: {{initial: {{frames: 476}}}}", folder)
    assert "initial set (952) and one generation (50): want at least 1002" in line
    assert read(f"{text}select: {{per_generation: 6}}", folder)
    line = complaint(f"{text}select: {{per_generation: 5}}", folder)
    assert "select.per_generation: 2 for each system" in line


def test_all_faults_come_at_once_in_the_order_of_the_file(folder: Path) -> None:
    text = """\
schema: 1
campaign: {name: test, sed: 4}
systems:
  a: {structure: methyl.xyz}
  b: {structure: nowhere.xyz}
  c: {structure: ethanol.xyz, chrge: 1}
  d: {structure: ethanol.xyz, charge: one}
tiers:
  - {id: gfn, method: {engine: tblyte}}
committee: [{id: a, members: 2}]
explore:
  routes:
    - {id: warm, timestep: 3 fs, temprature: 300 K}
    - {id: cold, temperature: 300, systems: [z]}
stop: {for_generations: 30}
"""
    lines = complaints(text, folder)
    assert [line.partition("  ")[2].partition(": ")[0] for line in lines] == [
        "campaign.sed",
        "systems.a.multiplicity",
        "systems.b.structure",
        "systems.c.chrge",
        "systems.d.charge",
        "tiers.gfn.method.engine",
        "committee",
        "explore.routes.warm.timestep",
        "explore.routes.warm.temprature",
        "explore.routes.cold.temperature",
        "explore.routes.cold.systems[0]",
        "stop.for_generations",
    ]
    assert [int(line.partition(":")[0]) for line in lines] == sorted(
        int(line.partition(":")[0]) for line in lines
    )


def test_a_fault_makes_no_further_ones(folder: Path) -> None:
    """Where a value is missing because it was faulty, nothing is concluded from its default."""
    systems = "systems:\n  a: {structure: methyl.xyz, multiplicty: 2}\n"
    assert "multiplicty: unknown key" in complaint(HEAD + systems + TIERS, folder)
    text = f"{GOOD}spacetime: {{}}\n{routes('id: a, ensemble: nev', 'id: b')}"
    assert "'nev' is not one of nvt, nve" in complaint(text, folder)
    assert "members: want an integer" in complaint(
        GOOD + "committee: [{id: a, members: 2}, {id: b, members: x}]\n", folder
    )


def test_overrides_replace_values_and_own_their_faults(folder: Path) -> None:
    path = folder / "good.yaml"
    path.write_text(GOOD)
    loaded = load(path, {"site": "inprocess", "tiers.gfn.budget.labels": "900", "stop.patience": 7})
    config = loaded.config
    assert (config.site, config.tiers[0].budget.labels, config.stop.patience) == (
        "inprocess",
        900,
        7,
    )
    wrong = {"tiers.x.budget": "1", "systems.etoh.chrge": 1, "nothing.here": "2", "site": "[1, 2"}
    with pytest.raises(ConfigError) as caught:
        load(path, wrong)
    assert [line.partition(": ")[0] for line in caught.value.problems] == [
        "override  nothing",
        "override  site",
        "override  systems.etoh.chrge",
        "override  tiers.x.budget",
    ]


def test_files_that_are_none_of_ours(tmp_path: Path) -> None:
    def one(name: str, data: bytes | None) -> str:
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(ConfigError) as caught:
            load(path)
        (line,) = caught.value.problems
        return line.removeprefix(str(path))

    assert one("missing.yaml", None) == "  cannot be read: No such file or directory"
    assert one("empty.yaml", b"").startswith(":1:1  the file is empty: 'alloop init'")
    assert one("comment.yaml", b"# nothing\n").startswith(":1:1  the file is empty")
    assert one("list.yaml", b"- 1\n").startswith(":1:1  want 'key: value' lines")
    assert one("png.yaml", b"abc\nd\x89PNG") == ":2:2  not a text file: byte 0x89 is not UTF-8"
    assert one("null.yaml", b"a: \x00").startswith(":1:4  not a text file")
    assert one("large.yaml", b"a" * 2_000_000).startswith("  is over 1000000 bytes")
    assert one("utf16.yaml", GOOD.encode("utf-16")).startswith(":1:1  not a text file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="is a folder, want a campaign file"):
        load(tmp_path / "folder")


def test_a_byte_order_mark_does_not_matter(folder: Path) -> None:
    path = folder / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load(path).text == GOOD


def test_validate_says_what_is_perhaps_not_meant(folder: Path, capsys, monkeypatch) -> None:
    systems = "systems:\n  co2: {structure: co2.xyz}\n  etoh: {structure: ethanol.xyz}\n"
    text = HEAD + systems + TIERS + routes("id: a, timestep: 2 fs, systems: [co2]")
    (folder / "config.yaml").write_text(text)
    monkeypatch.setattr("sys.argv", ["alloop", "validate", str(folder / "config.yaml")])

    with pytest.raises(SystemExit):
        main()

    assert "warning: " in (said := capsys.readouterr().out)
    assert "systems.etoh: no route starts from it" in said
