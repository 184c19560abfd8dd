"""Data directories and downloads that never leave the machine."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pooch
import pytest
import requests

from stalegrad.models.datasets import load, sources

Serve = Callable[[str], bytes]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def requested() -> list[str]:
    """The addresses asked for during the test."""
    return []


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, requested: list[str]) -> Callable[[Serve], None]:
    """Answer downloads by a function from address to bytes; pooch still checks and stores them."""

    def install(answer: Serve) -> None:
        def download(self: Any, url: str, output_file: str, *rest: Any, **options: Any) -> None:
            requested.append(url)
            Path(output_file).write_bytes(answer(url))

        monkeypatch.setattr(pooch.HTTPDownloader, "__call__", download)

    return install


@pytest.fixture
def offline(data: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Serve], None]) -> Iterator[None]:
    """No network, an empty data directory, no Debian package, nothing loaded before."""

    def refuse(url: str) -> bytes:
        raise requests.ConnectionError("the cable is cut")

    serve(refuse)
    monkeypatch.setenv("STALEGRAD_DATA", str(data))
    for name, source in sources.SOURCES.items():
        if source.system is not None:
            nowhere = dataclasses.replace(source, system=data / "nowhere")
            monkeypatch.setitem(sources.SOURCES._entries, name, nowhere)
    load._load.cache_clear()
    yield
    load._load.cache_clear()
