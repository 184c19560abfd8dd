"""A page for every method of the registry: recurrence, parameters, an example, the paper."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from pages.text import cell, markdown
from stalegrad.policies.method import MethodInfo
from stalegrad.policies.method_help import arguments_of, text_of
from stalegrad.policies.methods import REGISTRY

RATE = 0.02
"""The learning rate of all examples; small enough for methods whose steps have its size, such as Adam."""

BOWL = """\
import jax.numpy as jnp
import stalegrad as sg

problem = sg.Problem.from_functions(lambda key: jnp.ones(3), lambda w, batch, key: 0.5 * jnp.sum(w**2))
""".splitlines()

SKEWED = """\
import stalegrad as sg
from stalegrad.models import Dirichlet

skewed = Dirichlet(alpha=0.1)  # workers have different classes
problem = sg.Problem("softmax-regression", "fashion-mnist-small", batch_size=16, partition=skewed)
""".splitlines()


def spelling(info: MethodInfo) -> str:
    """Return the name of a method in Python."""
    return "async_" if info.name == "async" else info.name.replace("-", "_")


def page(info: MethodInfo) -> str:
    """Return the page of a method."""
    name, text = spelling(info), info.__doc__ or ""
    recurrence = text_of(info).split("\n\nSynchrony ")[0]
    synchrony = info.synchrony.__name__
    lines = [f"# {info.name}", ""]
    if info.aliases:
        lines += [f"Also called {', '.join(f'`{alias}`' for alias in info.aliases)}.", ""]
    lines += [
        f"```{{py:function}} stalegrad.policies.methods.{name}(*, {', '.join(_arguments(info))})",
        ":single-line-parameter-list:", "```", "",
        *(f"```{{py:function}} stalegrad.policies.methods.{alias.replace('-', '_')}\n:no-typesetting:\n```"
          for alias in info.aliases),
        "", "## What the server does", "", markdown(recurrence), "",
        "## Who waits for whom", "",
        f"Synchrony [`{info.synchrony_name}`](../api/stalegrad.policies.{synchrony}.rst). "
        f"{markdown(' '.join((inspect.getdoc(info.synchrony) or '').split(chr(10) * 2)[0].split()))}", "",
        f"![Timeline of {info.synchrony_name}: bars are gradients from read to finish, vertical lines are updates]"
        f"(../pictures/synchrony-{info.synchrony_name}.png)", "",
        "## Parameters", "", "| parameter | description |", "|---|---|",
        *(f"| `{key}` | {cell(described)} |" for key, described in arguments_of(info).items()), "",
        "A wrong, unknown or missing parameter raises a ValueError that says what is allowed.", "",
        "## Example", "", "```python", *example(info), "```", "",
        "In a spec:", "", "```toml", "[method]", f'name = "{info.name}"',
        *(f"{key} = {_toml(value)}" for key, value in needed(info).items()), f"learning_rate = {RATE}", "```", "",
        "## Reference", "", *(f"* {cell(line)}" for line in references(text)), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _arguments(info: MethodInfo) -> list[str]:
    shown = []
    for key, parameter in inspect.signature(info).parameters.items():
        shown.append(key if parameter.default is parameter.empty else f"{key}={parameter.default!r}")
    return [*shown, "synchrony=None"]


def needed(info: MethodInfo) -> dict[str, object]:
    """Return values for the required parameters, taken from the docstring's example."""
    call = re.search(r">>> methods\.\w+\((.*)\)\.name", info.__doc__ or "")
    given: dict[str, object] = eval(f"dict({call[1]})", {}) if call else {}
    return {key: value for key, value in given.items() if key != "learning_rate"}


def example(info: MethodInfo) -> list[str]:
    """Return lines of code that train with the method for a few updates; the tests execute them."""
    arguments = ", ".join(f"{key}={value!r}" for key, value in {"learning_rate": RATE, **needed(info)}.items())
    seconds = needed(info).get("seconds")
    workers = len(seconds) if isinstance(seconds, tuple) else 4
    return [
        *(SKEWED if info(**needed(info)).rule(workers).table else BOWL),
        f"cluster = sg.Cluster(workers={workers}, compute=sg.Exponential(1.0))",
        f"method = sg.methods.{spelling(info)}({arguments})",
        "result = sg.run(sg.Experiment(problem, cluster, method, updates=50), progress=False)",
        'print(result.history[["wallclock", "train_loss", "mean_staleness"]].tail())',
    ]


def _toml(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else repr(value)


def references(text: str) -> list[str]:
    """Return the papers of a method's docstring, one per line."""
    section = text.split("\nReference: ")[1]
    return [" ".join(entry.split()) for entry in re.split(r"\n    (?=\w[\w-]*: )", section)]


def index() -> str:
    """Return the table of all methods."""
    lines = [
        "# Methods", "",
        "A method is a synchrony (who waits for whom) and a rule (what the server does with a message). "
        "Each has a page with its recurrence, parameters, an example and its paper; `help(methods.k_async)` shows "
        "the same. [Which of the newer methods does what?](../../methods.md) compares them.", "",
        "| method | in Python | synchrony | paper |", "|---|---|---|---|",
    ]  # fmt: skip
    for name in sorted(REGISTRY):
        info = REGISTRY[name]
        names = ", ".join([f"[{name}]({name}.md)", *(f"`{alias}`" for alias in info.aliases)])
        cells = [names, f"`methods.{spelling(info)}`", f"`{info.synchrony_name}`", cell(info.paper)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", *sorted(REGISTRY), "```", ""])


def pages(docs: Path) -> dict[str, str]:
    """Return the pages of all methods by file name below ``generated``."""
    return {"methods/index.md": index()} | {f"methods/{name}.md": page(info) for name, info in REGISTRY.items()}
