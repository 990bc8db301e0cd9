"""Constant pressure against constant volume of a crystal that softens, through real i-PI.

    python -m campaigns.finite_cell FOLDER --piece NAME/LAMBDA/SEED …   # some of PIECES, or all
    python -m campaigns.finite_cell FOLDER --collect      # writes benchmarks/finite_cell.json

Equilibrium runs of the 16 atoms of ``exact_cell`` at λ = 0 and 1, seeds and lengths fixed in
advance.  The finite-cell term, by the stress and by the strain alone, is compared with ΔG at
constant pressure minus Δ(F(h̄) + P V̄), exact: by the stress within 3 SE and 0.1 meV per atom with
an SE of at most 0.05; by the strain within 3 SE.  So is ΔG at constant pressure itself, the MBAR
total with the time step's term taken off: it has the noise of the whole crystal's energy.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from helpers import direct, exact_crystal
from helpers import exact_cell as exact

from alchemdriver.analysis import analyze
from alchemdriver.analysis.corrections.finite_cell import fluctuations_of, term_between
from alchemdriver.analysis.estimators.cell import CellFluctuations
from alchemdriver.contract.run_input import RunInput, read_input
from alchemdriver.prepare.render import Settings
from alchemdriver.prepare.run_folder import prepare
from campaigns.oscillator import finished, replace_once

RESULT = Path(__file__).parents[2] / "benchmarks" / "finite_cell.json"
LIMIT_Z, LIMIT, LIMIT_SE = 3.0, 0.1, 0.05  # SE; meV per atom
TIMESTEP = 2.0  # fs
TAU = 40.0  # fs, Langevin of the atoms
STRESS = "cell_h{angstrom}, stress_md{bar}"


@dataclass(frozen=True)
class Case:
    """Runs at both ends, *seeds* of each."""

    temperature: float  # K
    flexible: bool
    seeds: tuple[int, ...]
    tau: float  # fs, of the barostat
    pressure: float = 5e4  # bar: volumes of both ends differ by 1 %
    steps: int = 3000


CASES = {
    "isotropic-100K": Case(100.0, False, (1,), 870.0),
    "isotropic-300K": Case(300.0, False, (11,), 500.0),
    "flexible-100K": Case(100.0, True, (21,), 870.0),
    "flexible-300K": Case(300.0, True, (31,), 500.0),
}
PIECES = [f"{name}/{lam}/{s}" for name, c in CASES.items() for s in c.seeds for lam in (0, 1)]


def write_input(folder: Path, case: Case, lam: int, seed: int) -> Path:
    """A run, prepared where it is not there yet."""
    if (folder / "input.xml").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    values = {
        "model": str(exact.write_model(folder.parent / "crystal.json")),
        "alchemy": exact.ALCHEMY,
        "interpolation": "linear",
        "masses": "fixed",
        "lambda": str(lam),
    }
    settings = Settings(
        temperature=case.temperature,
        pressure=case.pressure,
        timestep=TIMESTEP,
        seed=2 * seed + lam,
        total_steps=case.steps,
    )
    prepare("windows-npt", exact.structure(), folder, values, settings)
    text = (folder / "input.xml").read_text()
    for old, new in (
        ('<tau units="femtosecond">500<', '<tau units="femtosecond">40<'),
        ('<tau units="femtosecond">1500<', f'<tau units="femtosecond">{case.tau:g}<'),
        ('<tau units="femtosecond">200<', f'<tau units="femtosecond">{TAU:g}<'),
        ('format="ase">positions<', 'format="xyz" cell_units="angstrom">positions{angstrom}<'),
    ):
        text = replace_once(text, old, new)
    if case.flexible:
        text = replace_once(text, 'mode="isotropic"', 'mode="flexible"')
        text = replace_once(text, "volume{angstrom3}", f"volume{{angstrom3}}, {STRESS}")
    (folder / "input.xml").write_text(text)
    return folder


def folder_of(root: Path, piece: str) -> Path:
    name, lam, seed = piece.split("/")
    return root / name / f"lambda-{lam}-{seed}"


def run_piece(root: Path, piece: str) -> None:
    name, lam, seed = piece.split("/")
    folder = write_input(folder_of(root, piece), CASES[name], int(lam), int(seed))
    if not finished(folder):
        direct.run(folder)


def timestep_term(case: Case) -> float:
    """(kT/8) Δt² (Σω_f² − Σω_i²), eV: what velocity Verlet adds, with the masses as run."""
    s = exact.structure()
    mass = np.repeat(exact_crystal.masses(s) * exact_crystal.U, 3)
    trace = np.sum(np.diag(exact_crystal.hessian(s)) * exact_crystal.PER_ANGSTROM2 / mass)
    kt = exact_crystal.KB * case.temperature / exact_crystal.EV
    return float(kt / 8 * (TIMESTEP * 1e-15) ** 2 * trace * (exact.SOFTER - 1.0))


def pooled(found: list[CellFluctuations]) -> CellFluctuations:
    """One end from its independent runs of equal length."""
    return replace(
        found[0],
        cell=np.mean([f.cell for f in found], axis=0),
        log_det=float(np.mean([f.log_det for f in found])),
        log_det_se=float(np.linalg.norm([f.log_det_se for f in found])) / len(found),
    )


def by_strain(run: RunInput) -> CellFluctuations:
    """As if no stress had been printed."""
    return fluctuations_of(replace(run, properties=()))


def collect(root: Path, name: str) -> dict:
    """What the runs of a case gave, eV of the cell."""
    case = CASES[name]
    runs = [
        [read_input(folder_of(root, f"{name}/{lam}/{s}")) for s in case.seeds] for lam in (0, 1)
    ]
    result = analyze([run.path for end in runs for run in end], write=False)
    total = result.total("MBAR")
    found = {
        "settings": asdict(case),
        "total": {"value": total.value, "se": total.se},
        "timestep": timestep_term(case),
        "versions": result.versions,
        "warnings": list(result.warnings),
    }
    for key, estimate in (("by_stress", fluctuations_of), ("by_strain", by_strain)):
        each = [[estimate(run) for run in end] for end in runs]
        term = term_between(case.temperature, *map(pooled, each))
        found[key] = {"value": term.value, "se": term.se, "source": term.source} | {
            f"lambda_{lam}": [
                {"log_det": f.log_det, "se": f.log_det_se, "cell": f.cell.tolist()} for f in end
            ]
            for lam, end in enumerate(each)
        }
    return found


@dataclass(frozen=True)
class Row:
    """A number against the exact one, meV per atom."""

    what: str
    exact: float
    off: float
    se: float
    sharp: bool  # whether its error must be small

    @property
    def passed(self) -> bool:
        near = abs(self.off) <= LIMIT_Z * self.se
        return near and (not self.sharp or (abs(self.off) <= LIMIT and self.se <= LIMIT_SE))


def rows(data: dict) -> list[Row]:
    """Of one case; exact values computed afresh."""
    s, n = data["settings"], len(exact.structure())
    known = exact.change(s["temperature"], s["pressure"], s["flexible"])
    total = data["total"]
    found = [
        ("finite cell, by the stress", known.difference, data["by_stress"], True),
        ("finite cell, by the strain", known.difference, data["by_strain"], False),
        ("ΔG at constant pressure", known.constant_pressure,
         total | {"value": total["value"] - data["timestep"]}, False),
    ]  # fmt: skip
    return [
        Row(w, 1e3 * x / n, 1e3 * (y["value"] - x) / n, 1e3 * y["se"] / n, sharp)
        for w, x, y, sharp in found
    ]


def table(cases: dict) -> list[str]:
    lines = []
    for name, data in cases.items():
        lines.append(f"{name}, {data['settings']['pressure']:g} bar, per atom:")
        lines += [
            f"  {r.what:26s} exact {r.exact:+9.4f}, off by {r.off:+.4f} ± {r.se:.4f} meV, "
            f"{r.off / r.se:+.1f} SE{'' if r.passed else '  FAILED'}"
            for r in rows(data)
        ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--piece", nargs="+", choices=PIECES, default=PIECES)
    parser.add_argument("--collect", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    root = args.folder.resolve()
    if not args.collect:
        for piece in args.piece:
            run_piece(root, piece)
        return
    cases = {name: collect(root, name) for name in CASES}
    content = {
        "command": "PYTHONPATH=tests python -m campaigns.finite_cell FOLDER, then --collect",
        "units": "eV of the cell of 16 atoms; cells Å; log_det without unit",
        "timestep_fs": TIMESTEP,
        "tau_fs": TAU,
        "versions": next(iter(cases.values()))["versions"],
        "cases": {k: {x: y for x, y in c.items() if x != "versions"} for k, c in cases.items()},
    }
    args.output.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(table(cases)))


if __name__ == "__main__":
    main()
