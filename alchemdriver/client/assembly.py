"""From an input to the objects that compute it: where names in the XML become code."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..contract.run_input import RunInput
from ..errors import InputError
from ..paths.terms import Hamiltonian
from ..potential.checks import check_evaluator, check_limits, check_stress
from ..potential.hamiltonian import ModelTerms
from ..potential.open import open_model

log = logging.getLogger(__name__)


def hamiltonian_of(
    run: RunInput, device: str, dtype: str | None = None, evaluator: str = "auto"
) -> Hamiltonian:
    """H(x, λ) of *run*, its evaluator and exact limits verified on the user's own structure.

    dtype: overrides the input's; evaluator: of a MACE model, see ``MaceBackend``.  Raises
    InputError for a bad input, ModelError for a model that is missing, unsupported, does not know
    an element, or fails a limit.
    """
    p = run.parameters
    backends = [
        open_model(name, run.folder, device, dtype or p.dtype, evaluator, head, p.charge, p.spin)
        for name, head in ((p.model, p.head), (p.other, None))
        if name is not None
    ]
    for each in backends:
        check_evaluator(each, run.transformation, run.structure)
        check_stress(each, run.constant_pressure)
    path, ends = run.lambda_path, run.ends
    path.check_ends(ends)
    backend = backends[0]
    terms = path.terms(ends, ModelTerms(backend, run.structure, *backends[1:]))
    if path.weighs_graph:
        worst = check_limits(backend, run.transformation, run.structure)
        log.info("exact limits hold to %.1e (relative) on this structure", worst)
    return Hamiltonian(terms, n_atoms=len(run.structure))


def lambda_reader(run: RunInput, expected_digest: str) -> Callable[[dict[str, str]], float]:
    """The check that a client makes of every request's parameters; returns its λ.

    The returned function raises InputError if the server runs another input, has no λ clock under
    a schedule, or sends no λ.
    """

    def lambda_of(parameters: dict[str, str]) -> float:
        sent = parameters.get("digest")
        if sent is None and run.schedule is not None:
            raise InputError(
                "the server sends no digest under a schedule: start it with 'alchemdriver run' or "
                "let 'alchemdriver prepare' write one"
            )
        if sent is not None and sent != expected_digest:
            raise InputError(
                f"digest mismatch: the server runs {sent}, {run.path.name} here means "
                f"{expected_digest}; species order, alchemy, model file, masses, tether or springs "
                "differ"
            )
        if run.schedule is not None and "clock" not in parameters:
            raise InputError(
                "this input has a schedule, but stock i-pi does not move lambda: start the server "
                f"with 'alchemdriver server {run.path.name}'"
            )
        if "lambda" not in parameters:
            raise InputError("the server sends no lambda: give it in <parameters>, or a schedule")
        try:
            lam = float(parameters["lambda"])
        except ValueError:
            raise InputError(f"the server sends lambda '{parameters['lambda']}'") from None
        if not 0.0 <= lam <= 1.0:
            raise InputError(f"the server sends lambda = {lam:g}, outside [0, 1]")
        return lam

    return lambda_of
