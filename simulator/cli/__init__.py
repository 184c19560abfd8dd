"""The command line, one file per command: demo, init, run, trace, what-if, compare, report, check, list, cite,
doctor.

Exit codes: 0 ok, 1 a check failed, 2 usage or bad input. Commands import what they need in their bodies, so that
``--help`` opens at once.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

import stalegrad
from stalegrad.simulator.cli.check import app as check_app
from stalegrad.simulator.cli.cite import cite_command
from stalegrad.simulator.cli.compare import compare_command
from stalegrad.simulator.cli.demo import demo_command
from stalegrad.simulator.cli.doctor import doctor_command
from stalegrad.simulator.cli.init import init_command
from stalegrad.simulator.cli.list import list_command
from stalegrad.simulator.cli.report import report_command
from stalegrad.simulator.cli.run import run_command
from stalegrad.simulator.cli.trace import trace_command
from stalegrad.simulator.cli.what_if import what_if_command

WELCOME = """\
stalegrad simulates asynchronous training: when every gradient arrives, and what it does to a model.

Try first:
  stalegrad demo                              compare five methods on 16 workers; a table and pictures
  stalegrad init spec.toml                    write a commented experiment, then
  stalegrad run spec.toml -o results/first    simulate, train, save and draw it

Then:
  stalegrad what-if steps.csv                 what other synchronies would have made of measured step times
  stalegrad init --paper NAME                 write the protocol of a paper; stalegrad list papers names them
  stalegrad list methods                      name the methods; also delays, models, datasets, ...
  stalegrad cite spec.toml                    print the references of what an experiment uses
  stalegrad doctor                            check this installation: devices, data, what is missing
  stalegrad --help                            all commands; COMMAND --help has the options of one

In Python: import stalegrad as sg; help(sg)"""


class Commands(TyperGroup):
    """The commands; an interrupt prints one sentence and exits with 130."""

    def invoke(self, ctx: Any) -> object:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            Console(stderr=True, highlight=False, soft_wrap=True).print(
                str(interrupt) or "interrupted", markup=False
            )
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo_command)
app.command("init")(init_command)
app.command("run")(run_command)
app.command("trace")(trace_command)
app.command("what-if")(what_if_command)
app.command("compare")(compare_command)
app.command("report")(report_command)
app.command("list")(list_command)
app.command("cite")(cite_command)
app.command("doctor")(doctor_command)
app.add_typer(check_app, name="check")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(stalegrad.__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Simulate asynchronous training: when every gradient arrives, and what it does to a model."""
    if context.invoked_subcommand is None:
        print(WELCOME)


def main() -> None:
    """Run the command line; bad input prints one sentence and exits with 2."""
    say = Console(stderr=True, highlight=False, soft_wrap=True, style="red", markup=False).print
    try:
        app()
    except (ValueError, OSError) as error:
        say(f"error: {error}")
        raise SystemExit(2) from None
    except MemoryError:
        say("error: not enough memory")
        raise SystemExit(2) from None
    except Exception as error:
        if not _raised_by_jax(error):
            raise
        say(f"error: JAX failed, possibly for lack of memory: {str(error).strip().splitlines()[0]}")
        raise SystemExit(2) from None


def _raised_by_jax(error: Exception) -> bool:
    """Return whether an error is one of JAX's runtime; do not import JAX."""
    errors = sys.modules.get("jax.errors")
    return errors is not None and isinstance(error, errors.JaxRuntimeError)
