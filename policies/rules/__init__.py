"""Rules: what the server does with a message, and what it sends back. Each is a line or two of parts.

A rule is put together from small pure parts:

* ``work``: what a worker does, where it keeps state of its own (``parts/work.py``);
* ``correction``: of each message, given how far the server has moved (``parts/corrections.py``);
* ``weight``: a factor on each message that depends on staleness alone (``parts/staleness_weights.py``);
* ``optimizer``: of the mean of an update's messages (optax by name, ``policies/optimizers.py``; or
  ``parts/momentum.py``);
* ``look_ahead``: the point that is sent to workers, from the new parameters.

theta <- theta + learning_rate * optimizer(mean_l weight_l * correction(message_l)): the rules' own optimizers are
built with learning rate 1, so no momentum of theirs holds a learning rate. One that is named follows its own
formula, theta <- theta + optimizer(mean, learning_rate).

A rule function's keyword arguments are its hyper-parameters. Floats may be swept without compiling again; whatever
else there is decides the structure. ``workers`` is filled in by the run.
"""

from stalegrad.policies.rules.dana import dana_dc, dana_ga, dana_sa, dana_slim, dana_zero
from stalegrad.policies.rules.descent import gap_limited_rate, gradient_descent, scaled_momentum
from stalegrad.policies.rules.gap import fasgd_rule, gap_aware_momentum
from stalegrad.policies.rules.momentum import dc_asgd, lwp, multi_asgd, nag_asgd, smega2_rule, spectrain
from stalegrad.policies.rules.rule import Rule
from stalegrad.policies.rules.staleness_weighted import (
    delay_adaptive,
    fleet,
    inverse_staleness,
    mindthestep,
    staleness_aware,
    tail,
)
from stalegrad.policies.rules.worker_models import (
    delayed_averaging,
    delayed_averaging_general,
    downpour,
    elastic_averaging,
)

__all__ = [
    "Rule",
    "dana_dc",
    "dana_ga",
    "dana_sa",
    "dana_slim",
    "dana_zero",
    "dc_asgd",
    "delay_adaptive",
    "delayed_averaging",
    "delayed_averaging_general",
    "downpour",
    "elastic_averaging",
    "fasgd_rule",
    "fleet",
    "gap_aware_momentum",
    "gap_limited_rate",
    "gradient_descent",
    "inverse_staleness",
    "lwp",
    "mindthestep",
    "multi_asgd",
    "nag_asgd",
    "scaled_momentum",
    "smega2_rule",
    "spectrain",
    "staleness_aware",
    "tail",
]
