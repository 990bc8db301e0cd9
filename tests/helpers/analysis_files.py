"""Handmade i-PI run folders for the analysis tests, in the exact format of i-PI's writers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alchemdriver import units
from alchemdriver.contract.run_input import read_input

TEMPLATE = """<simulation floatformat='%24.16e'>
  <output prefix='run'>
    <properties stride='1' filename='out'> [ step, time{{femtosecond}}, conserved{{electronvolt}} ]
    </properties>
    <trajectory stride='1' filename='dHdlambda' extra_type='dHdlambda'> extras </trajectory>
    {lambda_file}
  </output>
  <total_steps>{steps}</total_steps>
  <prng><seed>{seed}</seed></prng>
  <ffsocket name='alchemy' mode='unix' pbc='false'>
    <timeout>600</timeout>
    <address>x</address>
    <parameters>{{model: demo, alchemy: {alchemy}, {parameters}}}</parameters>
  </ffsocket>
  <system>
    <initialize nbeads='{beads}'><file mode='xyz' units='angstrom'>start.xyz</file></initialize>
    <forces><force forcefield='alchemy'>
      <interpolate_extras>[dHdlambda]</interpolate_extras>
    </force></forces>
    <ensemble><temperature units='kelvin'>{temperature}</temperature>{pressure}</ensemble>
    <motion mode='dynamics'>
      <fixcom>{fixcom}</fixcom>
      <dynamics mode='{ensemble}'><timestep units='femtosecond'>{timestep}</timestep>
        <thermostat mode='langevin'><tau units='femtosecond'>1</tau></thermostat>
        <barostat mode='isotropic'><tau units='femtosecond'>1</tau></barostat>
      </dynamics>
    </motion>
  </system>
</simulation>
"""
ATOMS = ("Cu", "Cu", "Cu", "Cu")
HEADER = """# column   1     --> step : The current simulation time step.
# column   2     --> time{femtosecond} : The elapsed simulation time.
# column   3     --> conserved{electronvolt} : The value of the conserved energy quantity per bead.
"""


def write_input(
    folder: Path,
    parameters: str,
    steps: int,
    *,
    alchemy="Cu->Au",
    symbols=ATOMS,
    positions=None,
    cell=6.0,
    beads=1,
    seed=1,
    temperature=300.0,
    ensemble="nvt",
    pressure="",
    fixcom="True",
    timestep=1.0,
    lambda_file=False,
) -> Path:
    """input.xml and start.xyz; returns the input's path."""
    folder.mkdir(parents=True, exist_ok=True)
    if positions is None:
        positions = np.arange(3.0 * len(symbols)).reshape(-1, 3) * 0.3
    rows = [f"{s} {x:.12f} {y:.12f} {z:.12f}" for s, (x, y, z) in zip(symbols, positions)]  # noqa: B905
    h = " ".join(f"{x:.12f}" for x in (np.eye(3) * cell).ravel())
    comment = f"# CELL(H): {h} cell{{angstrom}} positions{{angstrom}}"
    (folder / "start.xyz").write_text("\n".join([str(len(symbols)), comment, *rows]) + "\n")
    extras = "<trajectory stride='1' filename='lambda' extra_type='lambda'> extras </trajectory>"
    path = folder / "input.xml"
    path.write_text(
        TEMPLATE.format(
            lambda_file=extras if lambda_file else "",
            steps=steps,
            seed=seed,
            alchemy=alchemy,
            parameters=parameters,
            beads=beads,
            temperature=temperature,
            pressure=pressure,
            fixcom=fixcom,
            ensemble=ensemble,
            timestep=timestep,
        )
    )
    return path


def switching_input(
    folder: Path, equilibrate: int, switch: int, cycles: int, schedule="poly9", masses="", **options
) -> Path:
    """write_input for a schedule."""
    parameters = (
        f"schedule: {schedule}, equilibrate: {equilibrate}, switch: {switch}, cycles: {cycles}"
    )
    if masses:
        parameters += f", masses: {masses}"
    return write_input(folder, parameters, 2 * cycles * (equilibrate + switch), **options)


def extras_block(step: int, value: float, key="dHdlambda") -> str:
    """One frame as ipi.engine.outputs writes it."""
    return " #EXTRAS(%s)# Step:  %10d \n%24.16e\n" % (key, step, value)  # noqa: UP031


def property_row(*values: float) -> str:
    return "  " + "".join("%24.16e   " % v for v in values) + "\n"  # noqa: UP031


def write_outputs(path: Path, gradient: np.ndarray, conserved=None, lam=None) -> None:
    """Extras and properties of the run at *path*; gradient (n,) or (n, beads) in eV.

    conserved (n,) eV; by default it follows the work, as in a run that misses nothing.
    """
    run = read_input(path)
    gradient = np.asarray(gradient, dtype=float).reshape(len(gradient), -1)
    digits = len(str(run.beads))
    for b in range(run.beads):
        values = gradient[:, min(b, gradient.shape[1] - 1)] * units.ELECTRONVOLT
        text = "".join(extras_block(k, v) for k, v in enumerate(values))
        (path.parent / f"run.dHdlambda_{b:0{digits}d}").write_text(text)
        if lam is not None:
            text = "".join(extras_block(k, v, "lambda") for k, v in enumerate(lam))
            (path.parent / f"run.lambda_{b:0{digits}d}").write_text(text)
    if conserved is None:
        at = np.array([run.lam_at(k) for k in range(len(gradient))])
        mean = gradient.mean(axis=1)
        conserved = np.append(0.0, np.cumsum(0.5 * (mean[1:] + mean[:-1]) * np.diff(at)))
    rows = [property_row(k, k * (run.timestep or 1.0), e) for k, e in enumerate(conserved)]
    (path.parent / "run.out").write_text(HEADER + "".join(rows))


def lambdas(path: Path) -> np.ndarray:
    """λ of every step of the run at *path*."""
    run = read_input(path)
    return np.array([run.lam_at(k) for k in range(run.total_steps + 1)])


def run_with_works(path: Path, forward, backward) -> None:
    """Outputs whose gradients are constant on each ramp, so that the works are as given (eV)."""
    run = read_input(path)
    gradient = np.zeros(run.total_steps + 1)
    for s in run.schedule.segments():
        if s.kind == "forward":
            gradient[s.start : s.stop + 1] = forward[s.cycle]
        if s.kind == "backward":
            gradient[s.start : s.stop + 1] = -backward[s.cycle]
    write_outputs(path, gradient)
