"""``alchemdriver prepare PROTOCOL``: one command per protocol, with its own options and no others.

The commands are made from the table of protocols, each when it is asked for.
"""

from __future__ import annotations

import inspect
from itertools import groupby
from keyword import iskeyword
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..errors import InputError, did_you_mean
from ..prepare.options import MODEL, OTHER, Option, model_names
from ..prepare.protocols import PROTOCOLS, Protocol, find

Structure = Annotated[Path, typer.Argument(help="Anything ASE reads.", show_default=False)]
Folder = Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)]


class ProtocolCommand(TyperCommand):
    """``alchemdriver prepare NAME``; its usage errors speak of protocols."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as err:  # usage errors, of a package that typer keeps to itself
            raise _explained(err, find(str(self.name))) from None


def _explained(err: Exception, protocol: Protocol) -> Exception:
    """What typer complains about in the words of the table; *err* itself if it is not there."""
    if hasattr(err, "possibilities"):  # no such option
        flag = str(getattr(err, "option_name", ""))
        why = protocol.foreign(flag.lstrip("-").replace("-", "_"))
        near = did_you_mean(flag, [o.flag for o in protocol.options])
        return InputError(why or f"{protocol.name} has no option {flag}{near}")
    if hasattr(err, "param_type"):  # an option or argument is missing
        for option in protocol.needs:
            if option.flag in getattr(getattr(err, "param", None), "opts", ()):
                return InputError(protocol.missing(option))
    return err


class Protocols(TyperGroup):
    """The protocols by family; one that is misspelt, or not named first, is said so in one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [p.name for p in PROTOCOLS]

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        known = [p for p in PROTOCOLS if p.name == cmd_name]
        return _command(known[0]) if known else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for family, members in groupby(PROTOCOLS, key=lambda p: p.family):
            with formatter.section(family):
                formatter.write_dl([(p.name, p.does) for p in members], col_max=20)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as err:
            if not hasattr(err, "option_name"):
                raise
            raise InputError(
                f"{err.option_name} comes after the protocol: alchemdriver prepare switch-npt "
                "STRUCTURE FOLDER --model …"
            ) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if not ctx.resilient_parsing:  # i.e. unless the shell asks what could follow
            find(args[0])
        return super().resolve_command(ctx, args)


def _command(protocol: Protocol) -> TyperCommand:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    text = f"{protocol.family}: {protocol.does}."
    app.command(protocol.name, cls=ProtocolCommand, help=text)(_function(protocol))
    made = typer.main.get_command(app)
    assert isinstance(made, TyperCommand)
    return made


def _function(protocol: Protocol) -> Any:
    """What typer calls, with a signature made of the protocol's options."""

    def prepare(structure: Path, folder: Path, **options: Any) -> None:
        given = {name.rstrip("_"): v for name, v in options.items() if v is not None}
        if protocol.in_stages:
            from ..workflow.command import prepare_stages as write
        else:
            from ..prepare.command import prepare_runs as write
        for line in write(protocol, structure, folder, given):
            typer.echo(line)

    arguments = [_parameter("structure", Structure), _parameter("folder", Folder)]
    parameters = arguments + [_option(o, o in protocol.needs) for o in protocol.options]
    prepare.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    prepare.__annotations__ = {p.name: p.annotation for p in parameters}
    return prepare


def _option(option: Option, mandatory: bool) -> inspect.Parameter:
    settings = typer.Option(
        option.flag,
        help=option.about,
        min=option.least,
        autocompletion=model_names if option in (MODEL, OTHER) else None,
    )
    name = option.name + "_" * iskeyword(option.name)  # lambda
    if mandatory:
        return _parameter(name, Annotated[option.kind, settings])
    return _parameter(name, Annotated[option.kind | None, settings], option.default)


def _parameter(
    name: str, annotation: Any, default: Any = inspect.Parameter.empty
) -> inspect.Parameter:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kind, default=default, annotation=annotation)
