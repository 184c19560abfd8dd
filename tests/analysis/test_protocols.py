"""Protocols of analysis: the concrete classes satisfy them, at run time here and under mypy in ``make lint``."""

import inspect
import re

import pytest

from stalegrad._core import protocols
from stalegrad.policies import Method
from stalegrad.policies.synchrony import KAsync
from stalegrad.simulator import Experiment, Result
from stalegrad.simulator.timing.anatomy import Anatomy
from stalegrad.simulator.timing.trace import Trace
from stalegrad.simulator.whatif.answer import WhatIf

CONCRETE = {
    protocols.AnatomyLike: Anatomy,
    protocols.TraceLike: Trace,
    protocols.ResultLike: Result,
    protocols.ExperimentLike: Experiment,
    protocols.MethodLike: Method,
    protocols.SynchronyLike: KAsync,
    protocols.WhatIfLike: WhatIf,
}


def members(protocol):
    return [name for name in vars(protocol) if not name.startswith("_")]


def test_every_protocol_has_a_concrete_class():
    found = {
        value
        for value in vars(protocols).values()
        if inspect.isclass(value) and value.__module__ == protocols.__name__
    }
    assert found == set(CONCRETE)


@pytest.mark.parametrize("protocol", CONCRETE)
def test_concrete_classes_have_all_members(protocol):
    cls = CONCRETE[protocol]
    known = {name for base in cls.__mro__ for name in vars(base).get("__annotations__", {})}
    known |= set(re.findall(r"self\.(\w+) = ", inspect.getsource(cls)))
    assert [name for name in members(protocol) if not hasattr(cls, name) and name not in known] == []


@pytest.mark.parametrize("protocol", CONCRETE)
def test_every_member_is_documented(protocol):
    assert [name for name in members(protocol) if not inspect.getdoc(getattr(protocol, name))] == []
