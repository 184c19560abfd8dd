"""The help of every method: recurrence, every parameter with what is allowed, an example that runs, its paper."""

import doctest
import inspect
import pydoc
import re

import pytest

from stalegrad.policies import methods
from stalegrad.policies.method_help import allowed_by, arguments_of, text_of
from stalegrad.policies.methods import REGISTRY
from stalegrad.policies.papers import LINKS, PAPERS


@pytest.mark.parametrize("name", REGISTRY)
def test_every_method_says_what_it_does_and_takes(name):
    method = REGISTRY[name]
    described = arguments_of(method)
    assert set(described) == {*inspect.signature(method).parameters, "synchrony"}
    for key, text in described.items():
        assert not text.startswith(("Allowed", "Default", "Must")), f"{key} is not described"
        assert re.search(r"Default: .*\.|Must be given\.|e\.g\.", text), key
    assert inspect.getdoc(method.rule).splitlines()[0] in method.__doc__
    recurrence = text_of(method).partition("\n\nSynchrony ")[0]
    assert re.search(r" (<-|=) |learning rate min|stage i computes", recurrence), recurrence
    reference = " ".join(method.__doc__.split("\nReference: ")[1].split())
    assert all(paper in reference for paper in method.paper.split("; "))
    assert max(map(len, method.__doc__.splitlines())) <= 115


@pytest.mark.parametrize("name", REGISTRY)
def test_its_example_runs(name):
    runner = doctest.DocTestRunner()
    (example,) = doctest.DocTestFinder().find(REGISTRY[name], name, module=False, globs={})
    assert runner.run(example).attempted == 2
    assert runner.failures == 0


def test_help_shows_the_method_and_not_the_wrapper():
    text = pydoc.render_doc(methods.dana_zero, renderer=pydoc.plaintext)
    for words in (
        "v^i <- gamma v^i + d",
        "momentum: gamma. Allowed: at least 0, below 1. Default: 0.9.",
        "1907.11612",
    ):
        assert words in text
    shown = inspect.signature(methods.k_async)
    assert list(shown.parameters) == [
        "learning_rate", "k", "local_steps", "grace", "deadline", "optimizer", "weight_decay",
    ]  # fmt: skip


def test_a_method_of_users_has_help_too(monkeypatch):
    monkeypatch.setattr(REGISTRY, "_entries", dict(REGISTRY))
    from typing import Annotated

    from pydantic import Field

    from stalegrad.policies import Rule

    def rule(*, strength: Annotated[float, Field(ge=0, lt=1)] = 0.5):
        """w <- w - eta strength g.

        Args:
            strength: how much.
        """
        return Rule()

    made = methods.register("for-help", rule, paper="my notes")
    assert "w <- w - eta strength g." in made.__doc__
    assert "strength: how much. Allowed: at least 0, below 1. Default: 0.5." in made.__doc__
    assert made.__doc__.endswith("Reference: my notes")
    assert allowed_by(None) == ""


def test_links_are_those_of_papers():
    assert LINKS.keys() <= PAPERS.keys()
    assert all(link.startswith("https://") for link in LINKS.values())
