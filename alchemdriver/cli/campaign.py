"""``alchemdriver campaign``: many runs from one plan, here or on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

_PLAN = "plan"  # the verb that is not typed: alchemdriver campaign PLAN.toml


class Verbs(TyperGroup):
    """What does not begin with a verb is about the file of a plan."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = [_PLAN, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    rich_markup_mode=None,
    subcommand_metavar="PLAN.toml [FOLDER] | VERB ...",
)

Root = Annotated[Path, typer.Argument(metavar="DIR", help="A campaign's folder.")]
PlanFile = Annotated[Path, typer.Argument(metavar="PLAN.toml", help="See docs/campaigns.md.")]


@app.command(_PLAN)
def plan(
    file: PlanFile,
    folder: Annotated[
        Path | None, typer.Argument(help="To write; default: the plan's name.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cases and what they cost; write nothing.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where an evaluation is timed: cpu, cuda.")] = "cpu",
) -> None:
    """Write the campaign of a plan: its rows, structures and models ('plan' need not be typed)."""
    from ..campaign import show

    if dry_run:
        show.print_draft(file, device)
    else:
        show.plan_and_print(file, folder or file.with_suffix(""))


@app.command()
def add(root: Root, file: PlanFile) -> None:
    """Extend a campaign by a longer plan: more cases, replicas, a tighter error."""
    from ..campaign import show

    show.add_and_print(root, file)


@app.command()
def run(
    root: Root,
    executor: Annotated[
        str,
        typer.Option(
            help="local, slurm (as the plan's [slurm] says), or a file with a Parsl Config."
        ),
    ] = "local",
) -> None:
    """Run all that is not done; stopped or killed, call it again to go on."""
    from ..campaign import show
    from .show import terminate_like_ctrl_c

    with terminate_like_ctrl_c():
        show.run_and_print(root, executor)


@app.command()
def status(
    root: Root,
    watch: Annotated[bool, typer.Option("--watch", help="Until all is done.")] = False,
) -> None:
    """What is done, runs, waits and has failed; errors and hours left."""
    from ..campaign import show

    show.print_status(root, watch)
