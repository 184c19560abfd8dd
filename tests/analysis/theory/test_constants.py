"""Constants of problems and runs: against brute force, automatic differentiation and a trace made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from stalegrad.analysis import (
    measured_gamma,
    measured_noise,
    measured_p0,
    quadratic_constants,
    ridge_constants,
    softmax_constants,
)
from stalegrad.policies.synchrony import KBatchAsync
from stalegrad.simulator import Cluster, Exponential, simulate

RNG = np.random.default_rng(7)
X = RNG.normal(size=(60, 4)) * [1.0, 0.5, 2.0, 1.0]
Y = X @ [1.0, -2.0, 0.5, 3.0] + RNG.normal(size=60)
LABELS = np.arange(60) % 3
L2 = 0.1


def ridge_examples(w):
    return X * (X @ w - Y)[:, None] + 2 * L2 * w


def softmax(w):
    logits = jnp.asarray(X) @ w.reshape(4, 3)
    return (jax.nn.logsumexp(logits, axis=1) - logits[jnp.arange(60), LABELS]).mean() + L2 * (w**2).sum()


def test_ridge_curvature_is_that_of_the_function():
    hessian = [ridge_examples(w).mean(axis=0) - ridge_examples(np.zeros(4)).mean(axis=0) for w in np.eye(4)]
    constants = ridge_constants(X, Y, L2)
    values = np.linalg.eigvalsh(np.array(hessian))
    assert (constants.smoothness, constants.convexity) == pytest.approx((values[-1], values[0]))


def test_ridge_noise_holds_everywhere_and_is_reached_somewhere():
    _, _, noise, growth = ridge_constants(X, Y, L2)

    def slack(w):
        gradients = ridge_examples(w)
        mean = gradients.mean(axis=0)
        return noise + growth * mean @ mean - ((gradients - mean) ** 2).sum(axis=1).mean()

    assert min(slack(w) for w in RNG.normal(size=(200, 4)) * 10) >= 0
    least = optimize.minimize(slack, np.zeros(4)).fun
    assert abs(least) < 1e-4 * noise


def test_softmax_curvature_lies_between_its_bounds_everywhere():
    constants = softmax_constants(X, LABELS, L2)
    hessian = jax.jit(jax.hessian(softmax))
    for scale in (0.0, 0.3, 3.0):
        values = np.linalg.eigvalsh(np.asarray(hessian(jnp.asarray(scale * RNG.normal(size=12)))))
        assert constants.convexity * (1 - 1e-3) <= values[0]
        assert values[-1] <= constants.smoothness
    assert values[-1] > 0.01 * constants.smoothness


def test_softmax_noise_bounds_what_is_measured_and_l2_is_no_noise():
    def examples(w):
        off = np.asarray(jax.nn.softmax(X @ w.reshape(4, 3), axis=1)) - np.eye(3)[LABELS]
        return (X[:, :, None] * off[:, None, :]).reshape(60, -1)

    points = RNG.normal(size=(20, 12)) * 5
    measured = measured_noise(examples, points)
    assert 0.2 * softmax_constants(X, LABELS).noise < measured <= softmax_constants(X, LABELS).noise
    assert softmax_constants(X, LABELS).noise == softmax_constants(X, LABELS, L2).noise
    assert measured_noise(lambda w: examples(w) + 2 * L2 * w, points) == pytest.approx(measured)


def test_measured_noise_less_what_grows_with_the_gradient():
    points = [[3.0, -1.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]]
    variance = [np.cov(ridge_examples(np.array(w)).T, bias=True).trace() for w in points]
    squares = [(ridge_examples(np.array(w)).mean(axis=0) ** 2).sum() for w in points]
    assert measured_noise(ridge_examples, points) == pytest.approx(max(variance))
    expected = max(v - 0.5 * s for v, s in zip(variance, squares, strict=True))
    assert measured_noise(ridge_examples, points, growth=0.5) == pytest.approx(expected)


def test_quadratic_constants_are_its_eigenvalues():
    rotation = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    constants = quadratic_constants(rotation @ np.diag([0.5, 2.0, 4.0]) @ rotation.T, 0.3)
    assert constants == pytest.approx((4.0, 0.5, 0.3, 0.0))


def test_gamma_of_a_trace_made_by_hand(trace):
    # The only stale gradient was read at version 0 and used by update 3.
    gradients = np.array([[4.0, 0.0], [3.0, 0.0], [2.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert measured_gamma(trace, [gradients]) == pytest.approx((9 + 1) / 2)
    halved = np.array([[1.5, 0.0], [3.0, 0.0], [2.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    pooled = (10 + 1.25) / (2 + 2)
    assert measured_gamma([trace, trace], [gradients, halved]) == pytest.approx(pooled)


def test_gamma_of_fresh_gradients_is_zero(fresh):
    assert measured_gamma(fresh, [RNG.normal(size=(len(fresh.update_times) + 1, 2))]) == 0.0


def test_p0_of_a_trace_made_by_hand(trace, fresh):
    assert measured_p0(trace) == 0.75
    assert measured_p0(fresh) == 1.0
    assert measured_p0([trace, fresh]) == 5 / 6  # one gradient per update, and two


def test_p0_is_the_share_at_the_worst_place_of_an_update():
    trace = simulate(Cluster(8, Exponential(1.0)), KBatchAsync(4), gradients=60_000, seed=3)
    assert measured_p0(trace) == pytest.approx(1 / 8, abs=0.02)  # the first; the average is 0.2758


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: quadratic_constants([[1.0, 2.0]], 0.1), "symmetric square matrix"),
        (lambda t: quadratic_constants([[1.0, 2.0], [0.5, 3.0]], 0.1), "not symmetric.* by up to 1.5"),
        (lambda t: quadratic_constants(np.diag([1.0, -1.0]), 0.1), "none may be negative"),
        (lambda t: quadratic_constants(np.eye(2), -0.1), "noise = -0.1 is not allowed"),
        (lambda t: ridge_constants(X, Y[:-1]), r"give \(n, d\) and \(n,\)"),
        (lambda t: ridge_constants(X, Y, -1.0), "l2 = -1.0 is not allowed"),
        (lambda t: ridge_constants(np.ones((5, 2)), np.ones(5)), "not strongly convex"),
        (lambda t: measured_noise(ridge_examples, []), "points is empty"),
        (lambda t: measured_noise(ridge_examples, np.ones(4), -1.0), "growth = -1.0"),
        (lambda t: measured_gamma([t], []), "0 entries for 1 traces"),
        (lambda t: measured_gamma(t, [np.ones((2, 3))]), "do not cover 4 updates"),
        (lambda t: measured_p0([]), "must be a Trace"),
    ],
)
def test_bad_input_is_named(call, words, trace):
    with pytest.raises(ValueError, match=words):
        call(trace)
