"""Rules: what the server does with a message, and what it sends back. Each is a line or two of parts.

A rule is put together from small pure parts:

* ``work``: what a worker does, where it keeps its own state (``parts/work.py``);
* ``correction``: of each message, given how far the server has moved (``parts/corrections.py``);
* ``weight``: a factor on each message that depends on staleness alone (``parts/staleness_weights.py``);
* ``table``: rows per worker, whose mean takes the place of the mean message (``parts/tables.py``);
* ``optimizer``: of the mean of an update's messages (optax by name, ``policies/optimizers.py``; or
  ``parts/momentum.py``);
* ``look_ahead``: the point that is sent to workers, from the new parameters.

theta <- theta + learning_rate * optimizer(mean_l weight_l * correction(message_l)): the rules' own optimizers are
built with learning rate 1, so no momentum of theirs holds a learning rate. One that is named follows its own
formula, theta <- theta + optimizer(mean, learning_rate).

A rule function's keyword arguments are its hyper-parameters. Floats may be swept without compiling again; whatever
else there is decides the structure. ``workers`` is filled in by the run.
"""

from stalegrad.policies.rules.rule import Rule

__all__ = ["Rule"]
