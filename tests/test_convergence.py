"""Our own methods converge as they did: `stalegrad check`, used on ourselves.

A change that is meant to alter this records new baselines:

    pytest tests/test_convergence.py --convergence-record

Baselines are of one machine type; on others the bits differ and statistics decide.
"""

import pytest

from stalegrad.policies import methods
from stalegrad.simulator import load_experiment

METHODS = [
    methods.sync(learning_rate=0.02),
    methods.k_async(k=4, learning_rate=0.02),
    methods.mindthestep(learning_rate=0.005),
    methods.dana_zero(learning_rate=0.002),
    methods.gap_aware(learning_rate=0.002),
    methods.dc_asgd(learning_rate=0.0005),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_converges_as_recorded(convergence, request, method):
    experiment = load_experiment(request.path.parent / "convergence.toml").but(method=method)
    convergence.check(experiment, seed=range(5), tolerance=0.03)
