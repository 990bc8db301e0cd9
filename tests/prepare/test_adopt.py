"""Stock i-PI inputs adopted: what they start from, what stays, what is said, and that they run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from helpers import real_runs as rr

from alchemdriver import units
from alchemdriver.analysis.run import analyze
from alchemdriver.contract.run_input import read_input
from alchemdriver.errors import InputError
from alchemdriver.prepare.adopt import adopt

pytest.importorskip("ipi")
DATA = Path(__file__).parents[1] / "data" / "adopt"
SYMBOLS = ("C", "C", "H")
PLACES = np.array([[0.5, 0.25, 0.125], [2.5, 3.0, 3.5], [4.0, 1.0, 6.5]])  # Å
CELL = np.diag([6.0, 7.0, 8.0])  # Å
SHIFT = 0.1  # Å, of the anchors from the atoms, along each axis


@pytest.fixture
def home(tmp_path):
    """A folder with the inputs, one start in each format, and springs as a model."""
    for file in DATA.iterdir():
        shutil.copy(file, tmp_path)
    atoms = ase.Atoms(SYMBOLS, PLACES, cell=CELL, pbc=True)
    rows = "".join(f"{s} {x} {y} {z}\n" for s, (x, y, z) in zip(SYMBOLS, PLACES, strict=True))
    (tmp_path / "start.xyz").write_text(f"3\nno cell here\n{rows}")
    ase.io.write(tmp_path / "start.extxyz", atoms)
    lines = "".join(
        f"ATOM  {i + 1:5d} {s:>4s} {'':1s}{'  1':3s} {'':1s}{1:4d}{'':1s}   "
        f"{r[0]:8.3f}{r[1]:8.3f}{r[2]:8.3f}  0.00  0.00            0\n"
        for i, (s, r) in enumerate(zip(SYMBOLS, PLACES, strict=True))
    )
    cryst = f"CRYST1{6:9.3f}{7:9.3f}{8:9.3f}{90:7.2f}{90:7.2f}{90:7.2f} P 1           1\n"
    (tmp_path / "start.pdb").write_text(cryst + lines + "END\n")
    q = ", ".join(repr(float(x)) for x in (PLACES * units.ANGSTROM).ravel())
    h = ", ".join(repr(float(x)) for x in (CELL * units.ANGSTROM).ravel())
    m = ", ".join(repr(u * units.DALTON) for u in (13.0, 12.0107, 1.00794))
    (tmp_path / "state.chk").write_text(f"""<simulation><system>
      <forces><force forcefield='gone'/></forces>
      <beads natoms='3' nbeads='1'><q shape='(1, 9)'>[{q}]</q><p shape='(1, 9)'>[{"0, " * 8}0]</p>
      <m shape='(3)'>[{m}]</m><names shape='(3)'>[{", ".join(SYMBOLS)}]</names></beads>
      <cell shape='(3, 3)'>[{h}]</cell></system></simulation>""")
    springs = {
        "backend": "harmonic",
        "spring_constants": {"C": 2.0, "H": 3.0, "Si": 5.0},
        "anchors": (PLACES + SHIFT).tolist(),
        "cell": CELL.tolist(),
    }
    (tmp_path / "springs.json").write_text(json.dumps(springs))
    return tmp_path


def adopted(home: Path, name: str, **parameters):
    values = {"model": str(home / "springs.json"), **parameters}
    return adopt(home / f"{name}.xml", home / "run", values)


# name → ensemble, K, bar, fs, beads
KINDS = {
    "npt": ("npt", 150.0, 5000.0, 0.5, 1),
    "split": ("nvt", 300.0, None, 0.5, 4),
    "coloured": ("nvt", 298.0, None, 1.0, 2),
    "stress": ("npt", 200.0, 30.0, 1.0, 1),
}


@pytest.mark.parametrize("name", KINDS)
def test_conditions_and_start_are_those_of_the_input(home, name):
    """xyz with a cell of its own, pdb, ASE and a checkpoint: one structure, in Å."""
    run = adopted(home, name, **{"alchemy": "C[0]->Si", "lambda": "0.25"}).run
    ensemble, kelvin, bar, femtoseconds, beads = KINDS[name]
    assert (run.ensemble, run.beads) == (ensemble, beads)
    assert run.temperature == pytest.approx(kelvin)
    assert run.pressure is None if bar is None else run.pressure == pytest.approx(bar)
    assert run.timestep == pytest.approx(femtoseconds)
    assert run.structure.symbols == SYMBOLS
    # i-PI's bohr and ASE's differ in the eighth digit
    assert run.structure.positions == pytest.approx(PLACES, rel=1e-7, abs=1e-7)
    assert run.structure.cell == pytest.approx(CELL, rel=1e-7, abs=1e-7)
    assert run.parameters.digest is not None
    assert run.floatformat == "%24.16e"
    assert {e.key for e in run.extras} == {"dHdlambda", "lambda"}
    assert run.transformation.final[0] == "Si"


def test_every_change_is_said_and_nothing_else_changes(home):
    said = "\n".join(adopted(home, "npt").changes)
    for word in (
        "prefix='A'", "total_time", "offset", "seed", "floatformat", "timeout", "<cell", "<file",
        "outputs added", "'dft'", "336.00 Å^3",
    ):  # fmt: skip
        assert word in said
    text = (home / "run" / "input.xml").read_text()
    first, second = text.index("<!-- first comment -->"), text.index("<!-- second comment -->")
    assert text.index("<!-- above the root -->") < first < second < text.index('filename="pos"')
    for kept in (
        '<properties stride="5" filename="out"> [ step, conserved, volume ]',
        "<port> 31999 </port>",
        '<thermostat mode="svr">',
        "<h0> [ 25, 0, 0, 0, 25, 0, 0, 0, 25 ] </h0>",
        '<pressure units="gigapascal"> 0.5 </pressure>',
    ):
        assert kept in text
    assert "cutoff" not in text


def test_masses_of_a_checkpoint_come_along(home):
    run = adopted(home, "stress").run
    assert run.initial_masses == pytest.approx([13.0, 12.0107, 1.00794])


def test_deuterium_is_hydrogen_of_its_mass(home):
    path = home / "start.xyz"
    path.write_text(path.read_text().replace("H ", "D "))
    run = adopted(home, "npt").run
    assert run.structure.symbols == SYMBOLS
    assert run.initial_masses[2] == pytest.approx(2.0141, abs=1e-3)


def test_matrices_in_files_are_written_into_the_input(home):
    (home / "a.dat").write_text("# inversecm\n10 5\n-5 20\n10 5\n-5 20\n")
    path = home / "coloured.xml"
    before, _, after = path.read_text().partition("[ 10, 5, -5, 20, 10, 5, -5, 20 ]")
    path.write_text(before.replace("<A shape", "<A mode='file' shape") + "a.dat" + after)
    result = adopted(home, "coloured", **{"alchemy": "C[0]->Si", "lambda": "0.5"})
    assert "[ 10.0, 5.0, -5.0, 20.0, 10.0, 5.0, -5.0, 20.0 ]" in result.run.path.read_text()
    assert any("a.dat" in line for line in result.changes)


def test_split_forces_become_the_whole_model(home):
    result = adopted(home, "split")
    text = (home / "run" / "input.xml").read_text()
    assert text.count("<force ") == 1
    assert "pot_component" not in text
    assert "nmts" not in text
    assert "<!-- the slow part, on fewer beads -->" in text
    said = "\n".join(result.changes)
    assert "on all 4 beads" in said
    assert "0.5 femtosecond" in said
    for name in ("'out'", "'slow'", "'forces_slow'"):
        assert name in said


def test_a_switch_gets_its_schedule(home):
    run = adopted(home, "npt", alchemy="C[0]->Si", equilibrate="10", switch="20", cycles="2").run
    assert run.total_steps == run.schedule.total_steps == 120
    assert run.interpolates_masses


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (("<force forcefield='dft'/>", "<force forcefield='dft' weight='0.5'/>"), "weight"),
        (("<ensemble>", "<ensemble><bias><force forcefield='b'/></bias>"), "bias"),
        (("<ffsocket name", "<smotion mode='metad'/><ffsocket name"), "smotion"),
        (("ffsocket", "ffplumed"), "take it and its <force> out"),
        (("start.xyz", "nowhere.xyz"), "--structure"),
        (("> start.xyz", "> start.pdb"), "i-PI cannot read it"),
        (("mode='npt'", "mode='scnpt'"), "scnpt"),
        (("</system>", "</system><system/>"), "input of its own"),
    ],
)
def test_what_cannot_be_held_is_refused_and_leaves_nothing(home, edit, says):
    path = home / "npt.xml"
    text = path.read_text()
    assert edit[0] in text
    path.write_text(text.replace(*edit))
    before = sorted(home.iterdir())
    with pytest.raises(InputError, match=says) as caught:
        adopted(home, "npt")
    assert "\n" not in str(caught.value)
    assert sorted(home.iterdir()) == before


def test_a_checkpoint_is_adopted_as_an_input(home):
    """i-PI's own writing of a run that was going on: places of beads, states, its step."""
    atoms = (PLACES * units.ANGSTROM).ravel()
    beads = np.array([atoms + 0.01, atoms - 0.01])
    q = ", ".join(repr(float(x)) for x in beads.ravel())
    text = (home / "coloured.xml").read_text()
    start, end = text.index("<initialize"), text.index("</initialize>") + len("</initialize>")
    restart = (home / "state.chk").read_text()
    there = restart[restart.index("<beads") : restart.index("</system>")]
    there = there.replace("nbeads='1'", "nbeads='2'").replace("(1, 9)", "(2, 9)")
    there = there.replace(there[there.index("[") : there.index("]") + 1], f"[{q}]", 1)
    there = there.replace("[" + "0, " * 8 + "0]", "[" + "0, " * 17 + "0]")
    text = text[:start] + there + text[end:]
    text = text.replace("</ensemble>", "<time>7.0</time><eens>0.1</eens></ensemble>")
    text = text.replace(
        "<thermostat mode='nm_gle'>", "<thermostat mode='nm_gle'><ethermo>1</ethermo>"
    )
    text = text.replace("<total_steps>", "<step>7</step><total_steps>")
    text = text.replace("verbosity='medium'", "sockets_prefix='/gone/since/'")
    (home / "coloured.xml").write_text(text)
    result = adopted(home, "coloured")
    run = result.run
    assert run.beads == 2
    assert run.structure.positions == pytest.approx(PLACES, rel=1e-7, abs=1e-7)
    said = "\n".join(result.changes)
    for word in ("centroid", "0.0053 Å", "<time>", "<ethermo>", "<step> 7", "sockets_prefix"):
        assert word in said
    names = [p.filename for p in run.properties]
    assert len(names) == len({*names}) == 2


def test_a_link_that_became_a_text_is_said(home):
    (home / "start.xyz").write_text("../../init_files/start.xyz")
    with pytest.raises(InputError, match="holds the name of a file"):
        adopted(home, "npt")


def test_a_stress_that_is_no_pressure_is_refused(home):
    path = home / "stress.xml"
    path.write_text(path.read_text().replace("[ 3, 0, 0, 0, 3,", "[ 3, 0, 0, 0, 4,"))
    with pytest.raises(InputError, match="not hydrostatic"):
        adopted(home, "stress")


def test_coloured_noise_takes_no_schedule(home):
    with pytest.raises(InputError, match="give 'lambda'"):
        adopted(home, "coloured", alchemy="C[0]->Si", equilibrate="1", switch="1")


def test_a_folder_in_use_is_left_alone(home):
    (home / "run").mkdir()
    (home / "run" / "mine").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        adopted(home, "npt")
    assert [f.name for f in (home / "run").iterdir()] == ["mine"]


def test_an_adopted_input_runs_and_is_analysed(home):
    """Through the command; at step 0 U = ½ Σ (λ-mixed k) d² for every bead, by hand."""
    done = rr.command(
        "adopt", home / "coloured.xml", home / "run", "--model", home / "springs.json",
        "--alchemy", "C[0]->Si", "--lambda", 0.25,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "fixed λ only" in done.stdout
    assert "'committee_pot'" in done.stdout
    done = rr.command("run", home / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    run = read_input(home / "run")
    assert "<batch_size>" in run.path.read_text()
    stiffness = (0.75 * 2.0 + 0.25 * 5.0) + 2.0 + 3.0
    names = [c.split("{")[0] for c in run.properties[0].columns]
    row = rr.rows(run.output(run.properties[0].filename))[0].split()
    potential = float(row[names.index("potential")])
    assert potential == pytest.approx(0.5 * stiffness * 3 * SHIFT**2, rel=1e-6)
    result = analyze(home / "run", write=False)
    (window,) = result.windows
    assert window.lam == 0.25
    assert any("no single temperature" in text for text in result.warnings)
