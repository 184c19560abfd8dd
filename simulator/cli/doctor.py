"""``stalegrad doctor``: what this installation has, and what is missing."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.table import Table
from rich.text import Text

from stalegrad.simulator.cli.console import console

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TUNABLES = "GLIBC_TUNABLES"
HUGE_PAGES_ON = "glibc.malloc.hugetlb=1"
NO_EXTRAS = ("all", "dev", "docs")
"""Extras that bring no feature of their own, or are for developers."""


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        name: what was looked at.
        value: what was found; None: nothing.
        advice: what the user can do; empty where there is nothing to do.
    """

    name: str
    value: str | None
    advice: str = ""


def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Print versions, devices, data directories and caches, and what is missing.

    Ends with 1 if a dependency is missing or JAX finds no device.
    """
    sections = {
        "versions": [*versions()],
        "extras": [*extras()],
        "devices": [*devices()],
        "data": [*data()],
        "compiled code": [*compiled()],
        "memory": [*memory()],
    }
    if as_json:
        tables = {
            section: {found.name: {"value": found.value, "advice": found.advice} for found in findings}
            for section, findings in sections.items()
        }
        print(json.dumps(tables, indent=2))
    else:
        console.print(_table(sections))
    if any(finding.value is None for finding in sections["versions"] + sections["devices"]):
        raise typer.Exit(1)


def versions() -> Iterator[Finding]:
    """Give the versions of stalegrad, Python and the dependencies."""
    yield Finding("stalegrad", metadata.version("stalegrad"))
    yield Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for requirement, extra in _requirements():
        if extra is None:
            name = _distribution(requirement)
            yield Finding(name, _version(name), "" if _version(name) else f"pip install '{requirement}'")


def extras() -> Iterator[Finding]:
    """Give the extras, with the versions of what they install."""
    for requirement, extra in _requirements():
        if extra is not None and extra not in NO_EXTRAS:
            name = _distribution(requirement)
            found = _version(name)
            advice = "" if found else f"pip install '{requirement}'"
            yield Finding(extra, f"{name} {found}" if found else "not installed", advice)


def devices() -> Iterator[Finding]:
    """Give the devices that JAX computes on."""
    yield Finding("CPU cores", str(_cores()))
    try:
        import jax

        found = jax.devices()
    except (ImportError, RuntimeError) as error:
        yield Finding("JAX", None, str(error).splitlines()[0])
        return
    for device in found:
        yield Finding(f"JAX {device.platform}:{device.id}", device.device_kind)
    if all(device.platform == "cpu" for device in found) and shutil.which("nvidia-smi"):
        advice = "JAX does not use it: install the extra cuda12 or cuda13 (see above)"
        yield Finding("NVIDIA GPU", "nvidia-smi is installed", advice)
    precision = "float64" if jax.config.read("jax_enable_x64") else "float32"
    yield Finding("precision", precision, "" if precision == "float64" else "float64: set JAX_ENABLE_X64=1")


def data() -> Iterator[Finding]:
    """Give the directory of data sets, and which of them are there."""
    import pooch

    from stalegrad.models.datasets.fetching import DATA_VARIABLE, local_files
    from stalegrad.models.datasets.sources import SOURCES

    root = Path(os.environ.get(DATA_VARIABLE) or pooch.os_cache("stalegrad")).expanduser()
    yield Finding("directory", str(root), "" if os.environ.get(DATA_VARIABLE) else f"another: set {DATA_VARIABLE}")
    for name, source in SOURCES.items():
        if source.url is None:
            yield Finding(name, "comes with the package")
        elif source.url:  # not a folder of images, which lies where the user says
            places = [place for place in (root / name, source.system) if place is not None]
            there = [place for place in places if len(local_files(place, source)) == len(source.files)]
            how = "downloaded when it is used" if source.download else f"get it from {source.url}"
            yield Finding(name, str(there[0]) if there else "not there", "" if there else how)


def compiled() -> Iterator[Finding]:
    """Give where compiled code is kept, and how much there is."""
    from stalegrad.simulator.replays.compiling import MOST_BYTES, PLACE, compiled_cache

    chosen = os.environ.get(PLACE)
    if chosen == "":
        yield Finding("directory", "none: compiled code is not kept", f"unset {PLACE} to keep it")
        return
    place = Path(chosen) if chosen else compiled_cache()
    sizes = [file.stat().st_size for file in place.glob("*") if file.is_file()]
    yield Finding("directory", str(place), "" if chosen else f"another: set {PLACE}; none: leave it empty")
    limit = "" if chosen else f" of at most {MOST_BYTES / 2**20:,.0f} MiB"
    yield Finding("size", f"{sum(sizes) / 2**20:,.1f} MiB in {len(sizes)} files{limit}")


def memory() -> Iterator[Finding]:
    """Give whether huge pages are used; they make convolutional networks on CPUs faster."""
    try:
        mode = re.findall(r"\[(\w+)\]", HUGE_PAGES.read_text())[0]
    except (OSError, IndexError):
        yield Finding("huge pages", "not known on this system")
        return
    asked = HUGE_PAGES_ON in os.environ.get(TUNABLES, "")
    if mode == "never":
        yield Finding("huge pages", "never", "the system does not allow them")
    elif mode == "always" or asked:
        yield Finding("huge pages", f"{mode}: used")
    else:
        advice = f"networks with convolutions train faster on CPUs with {TUNABLES}={HUGE_PAGES_ON}"
        yield Finding("huge pages", f"{mode}: allowed, but not asked for", advice)


def _requirements() -> Iterator[tuple[str, str | None]]:
    """Give the requirements of the package, each with the extra that it belongs to; None: it is needed always."""
    for line in metadata.requires("stalegrad") or ():
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra\s*==\s*[\"']([\w-]+)[\"']", marker)
        yield requirement.strip(), extra and extra[1]


def _distribution(requirement: str) -> str:
    """Return the name of what a requirement installs: of ``jax[cuda12]`` that is JAX's plugin."""
    name, option = re.findall(r"^([\w.-]+)(?:\[([\w-]+)\])?", requirement)[0]
    return f"{name}-{option}-plugin" if option else name


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _table(sections: dict[str, list[Finding]]) -> Table:
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for column in ("", "found", "what you can do"):
        table.add_column(column, overflow="fold")
    for section, findings in sections.items():
        table.add_row(Text(section, style="bold"))
        for finding in findings:
            value = Text("missing", style="red") if finding.value is None else Text(finding.value)
            table.add_row(Text(f"  {finding.name}"), value, Text(finding.advice))
    return table
