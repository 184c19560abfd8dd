"""Fitted staleness: parameters by closed forms and scipy, the paper's distances by simulation, bad input."""

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import optimize, stats
from scipy.special import gammaln, logsumexp

from stalegrad.analysis import fit_staleness
from stalegrad.analysis.fits.staleness_models import cmp_log_normaliser, cmp_log_pmf
from stalegrad.policies.synchrony import Async, Sync
from stalegrad.simulator import Cluster, Exponential, Gamma, LogNormal, simulate


def draws(law: object, size: int = 20_000) -> np.ndarray:
    return law.rvs(size, random_state=np.random.default_rng(5))  # type: ignore[attr-defined,no-any-return]


def row(observed: object, model: str, **options: object) -> dict:
    return dict(fit_staleness(observed, [model], **options).table.iloc[0])  # type: ignore[arg-type]


# The Conway-Maxwell-Poisson law


@pytest.mark.parametrize(
    ("log_lam", "nu"),
    [
        (math.log(8), 1.0),
        (math.log(0.9), 0.0),
        (math.log(0.999), 0.0),
        (math.log(0.999), 1e-4),
        (math.log(1e5), 1.0),
        (50 * math.log(1e5), 50.0),
        (0.01 * math.log(1e5), 0.01),
        (1e-3 * math.log(1e3), 1e-3),
        (1e-3 * math.log(2e4), 1e-3),
    ],
)
def test_the_normaliser_is_the_plain_sum(log_lam, nu):
    k = np.arange(1_000_000.0)
    assert cmp_log_normaliser(log_lam, nu) == pytest.approx(logsumexp(k * log_lam - nu * gammaln(k + 1)), abs=1e-9)


def test_cmp_contains_poisson_geometric_and_bernoulli():
    k = np.array([0, 1, 7, 100_000])
    np.testing.assert_allclose(cmp_log_pmf(k, math.log(7.5), 1.0), stats.poisson.logpmf(k, 7.5))
    np.testing.assert_allclose(cmp_log_pmf(k, math.log(0.8), 0.0), stats.geom.logpmf(k, 0.2, loc=-1))
    np.testing.assert_allclose(np.exp(cmp_log_pmf([0, 1, 2], math.log(3), 300.0)), [0.25, 0.75, 0], atol=1e-12)
    assert cmp_log_normaliser(0.0, 0.0) == math.inf  # a sum of ones


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 20.0), st.floats(0.1, 1e5))
def test_the_mode_of_cmp_is_lam_to_the_one_over_nu(nu, peak):
    around = np.array([math.floor(peak) - 1, math.floor(peak), math.floor(peak) + 1])
    log_p = cmp_log_pmf(around[around >= 0], nu * math.log(peak), nu)
    assert np.isfinite(log_p).all()
    assert log_p.max() == pytest.approx(log_p[around[around >= 0] == math.floor(peak)][0], abs=1e-6)


# Maximum likelihood against closed forms


def test_likelihood_of_one_parameter_has_closed_forms():
    values = draws(stats.poisson(6.0))
    assert row(values, "poisson")["lam"] == pytest.approx(values.mean(), rel=1e-7)
    assert row(values, "geometric")["p"] == pytest.approx(1 / (1 + values.mean()), rel=1e-7)
    assert row(values, "uniform")["tau_hat"] == values.max()


def test_likelihood_of_cmp_matches_its_sufficient_statistics():
    # In an exponential family the best parameters give tau and log tau! their observed means.
    values = draws(stats.binom(30, 0.6))
    found = row(values, "cmp")
    k = np.arange(400)
    p = np.exp(cmp_log_pmf(k, math.log(found["lam"]), found["nu"]))
    assert p @ k == pytest.approx(values.mean(), rel=1e-5)
    assert p @ gammaln(k + 1) == pytest.approx(gammaln(values + 1).mean(), rel=1e-5)


def test_likelihood_of_the_negative_binomial_has_the_observed_mean_and_no_better_neighbour():
    values = draws(stats.nbinom(3.0, 0.2))
    found = row(values, "negative-binomial")
    assert (found["r"], found["p"]) == (pytest.approx(3.0, rel=0.1), pytest.approx(0.2, rel=0.1))
    assert found["r"] * (1 - found["p"]) / found["p"] == pytest.approx(values.mean(), rel=1e-5)
    profile = optimize.minimize_scalar(
        lambda r: -stats.nbinom.logpmf(values, r, r / (r + values.mean())).sum(), bounds=(1, 9), method="bounded"
    )
    assert found["log_likelihood"] == pytest.approx(-profile.fun, abs=1e-4)


@pytest.mark.parametrize(
    ("law", "model"),
    [
        (stats.geom(0.1, loc=-1), "geometric"),
        (stats.randint(0, 20), "uniform"),
        (stats.poisson(12.0), "poisson"),
        (stats.nbinom(4.0, 0.3), "negative-binomial"),
    ],
)
@pytest.mark.parametrize("by", ["likelihood", "bhattacharyya"])
def test_the_law_of_the_draws_wins_and_is_not_rejected(law, model, by):
    table = fit_staleness(draws(law), by=by).table.set_index("model")
    best = table["aic"].min()
    # A law that another model contains loses against it by chance; at most its one parameter's worth.
    assert table["aic"][model] < best + 4
    assert table["bhattacharyya"][model] < 1e-3 + table["bhattacharyya"].min()
    assert table["p_value"][model] > 1e-3
    assert (table["p_value"].drop([model, "cmp", "negative-binomial"], errors="ignore") < 1e-6).all()


def test_draws_of_cmp_are_recognised():
    k = np.arange(60)
    p = np.exp(cmp_log_pmf(k, 2.2 * math.log(8.0), 2.2))
    table = fit_staleness(np.random.default_rng(1).choice(k, 20_000, p=p / p.sum())).table.set_index("model")
    assert table["aic"].idxmin() == "cmp"
    assert table["nu"]["cmp"] == pytest.approx(2.2, rel=0.05)
    assert table["lam"]["cmp"] ** (1 / table["nu"]["cmp"]) == pytest.approx(8.0, rel=0.02)
    assert table["p_value"]["cmp"] > 1e-3


# Distance, AIC and test of fit by hand


def test_distance_likelihood_and_aic_are_their_definitions():
    values = np.array([0, 0, 1, 3])
    found = row(values, "poisson", constraint="m", workers=2)
    p = stats.poisson.pmf([0, 1, 3], 2.0)
    assert found["lam"] == 2.0
    assert found["bhattacharyya"] == pytest.approx(-math.log(np.sqrt(p * [0.5, 0.25, 0.25]).sum()))
    assert found["log_likelihood"] == pytest.approx(math.log(p[0] ** 2 * p[1] * p[2]))
    assert (found["fitted"], found["aic"]) == (0, pytest.approx(-2 * found["log_likelihood"]))


def test_chi_square_pools_cells_below_five_and_subtracts_fitted_parameters():
    values = np.repeat([0, 1, 2, 3, 4], [41, 36, 14, 6, 3])
    found = row(values, "poisson")
    assert found["lam"] == pytest.approx(0.94)
    expected = 100 * stats.poisson.pmf([0, 1, 2], 0.94)
    expected = np.append(expected, 100 - expected.sum())  # 3 and more: 6.1; 4 and more alone would be 1.3
    assert expected[-1] > 5
    by_hand = stats.chisquare([41, 36, 14, 9], expected, ddof=1)
    assert (found["chi_square"], found["dof"]) == (pytest.approx(by_hand.statistic, rel=1e-5), 2)
    assert found["p_value"] == pytest.approx(by_hand.pvalue, rel=1e-5)


def test_p_values_of_true_models_are_spread_evenly():
    rng = np.random.default_rng(3)
    p = [row(rng.poisson(5.0, 500), "poisson")["p_value"] for _ in range(200)]
    assert stats.kstest(p, "uniform").pvalue > 1e-3


# Constraints of the paper


def test_constraints_fix_what_the_paper_fixes():
    values = draws(stats.poisson(7.0))
    for constraint, mode in (("m", 8), ("m-1", 7)):
        table = fit_staleness(values, by="bhattacharyya", constraint=constraint, workers=8).table.set_index(
            "model"
        )
        assert table["p"]["geometric"] == 1 / 8
        assert table["lam"]["poisson"] == mode
        assert table["lam"]["cmp"] ** (1 / table["nu"]["cmp"]) == pytest.approx(mode)
        assert table["fitted"].to_dict() == {
            "geometric": 0, "uniform": 1, "poisson": 0, "cmp": 1, "negative-binomial": 2
        }  # fmt: skip


def test_the_free_distance_is_never_above_the_constrained_one():
    values = draws(stats.binom(20, 0.5))
    free = fit_staleness(values, by="bhattacharyya").table
    tied = fit_staleness(values, by="bhattacharyya", constraint="m", workers=11).table
    assert (free["bhattacharyya"] <= tied["bhattacharyya"] + 1e-9).all()


def test_the_uniform_law_of_least_distance_is_found_by_trying_all():
    values = draws(stats.poisson(4.0), 500)
    q = np.bincount(values) / 500
    distances = [-math.log(np.sqrt(q[: top + 1] / (top + 1)).sum()) for top in range(len(q))]
    found = row(values, "uniform", by="bhattacharyya")
    assert found["tau_hat"] == np.argmin(distances)
    assert found["bhattacharyya"] == pytest.approx(min(distances))
    assert found["log_likelihood"] == -math.inf


# Traces

# Law, server time, m; distances of geometric(1/m), best uniform, Poisson(m), best Poisson, then nu and distance of
# CMP with mode m and with mode m - 1. From an independent discrete-event simulation of 400,000 updates.
DISTANCES = [
    (Exponential(1.0), 0.00, 8, 0.0000, 0.1024, 0.2600, 0.1964, 0.157, 0.0719, 0.154, 0.0551),
    (Exponential(1.0), 0.02, 32, 0.0027, 0.0999, 0.5519, 0.4722, 0.039, 0.0617, 0.039, 0.0576),
    (Gamma(1.0, 0.5), 0.00, 8, 0.0972, 0.0672, 0.0497, 0.0334, 0.501, 0.0218, 0.480, 0.0048),
    (Gamma(1.0, 0.5), 0.02, 16, 0.1188, 0.0786, 0.1173, 0.1045, 0.265, 0.0164, 0.261, 0.0081),
    (Gamma(1.0, 0.5), 0.00, 32, 0.1191, 0.0803, 0.2423, 0.2290, 0.128, 0.0148, 0.127, 0.0108),
    (Gamma(1.0, 0.2), 0.00, 8, 0.3903, 0.1939, 0.0596, 0.0363, 2.309, 0.0212, 2.114, 0.0056),
    (Gamma(1.0, 0.2), 0.00, 16, 0.4418, 0.2266, 0.0132, 0.0044, 1.316, 0.0089, 1.280, 0.0009),
    (Gamma(1.0, 0.2), 0.02, 32, 0.4935, 0.2605, 0.0087, 0.0049, 0.768, 0.0046, 0.763, 0.0006),
    (LogNormal(1.0, 0.5), 0.00, 16, 0.1198, 0.0999, 0.1288, 0.1009, 0.253, 0.0259, 0.257, 0.0169),
]


@pytest.mark.parametrize(
    ("law", "server", "m", "geometric", "uniform", "poisson", "free_poisson", "nu", "cmp", "nu_1", "cmp_1"),
    [pytest.param(*case, marks=pytest.mark.slow if i != 2 else ()) for i, case in enumerate(DISTANCES)],
)
def test_distances_of_simulated_staleness(
    law, server, m, geometric, uniform, poisson, free_poisson, nu, cmp, nu_1, cmp_1
):
    cluster = Cluster(m, law, server=server * law.expectation())
    trace = simulate(cluster, Async(), updates=200_000, seed=2)
    fits = [fit_staleness(trace, by="bhattacharyya", constraint=c).table for c in ("m", "m-1", None)]
    tied, tied_1, free = (table.set_index("model") for table in fits)
    got = tied["bhattacharyya"]
    noise = {"rel": 0.02, "abs": 4e-4}
    assert got[["geometric", "uniform", "poisson"]].tolist() == pytest.approx(
        [geometric, uniform, poisson], **noise
    )
    assert free["bhattacharyya"]["poisson"] == pytest.approx(free_poisson, **noise)
    assert [tied["nu"]["cmp"], got["cmp"]] == pytest.approx([nu, cmp], **noise)
    assert [tied_1["nu"]["cmp"], tied_1["bhattacharyya"]["cmp"]] == pytest.approx([nu_1, cmp_1], **noise)


def test_per_worker_fits_follow_the_fits_of_all():
    trace = simulate(Cluster(3, Exponential(1.0), speeds=(1, 1, 4)), Async(), updates=6_000, seed=2)
    fit = fit_staleness(trace, ["poisson", "geometric"], per_worker=True)
    assert fit.table["worker"].tolist() == ["all", "all", 0, 0, 1, 1, 2, 2]
    assert fit.table["model"].tolist() == ["poisson", "geometric"] * 4
    worker = trace.messages.query("fate == 'used'").groupby("worker")["staleness"].mean()
    poisson = fit.table.query("model == 'poisson'").set_index("worker")["lam"]
    np.testing.assert_allclose(poisson.drop("all").to_numpy(float), worker, rtol=1e-6)
    assert poisson["all"] == pytest.approx(trace.staleness.mean())
    assert fit.pmf("poisson", [0, 1], worker=2) == pytest.approx(stats.poisson.pmf([0, 1], poisson[2]))
    assert "fate" not in fit.table
    assert "worker" not in fit_staleness(trace).table


def test_staleness_of_a_hundred_thousand_is_fitted():
    values = draws(stats.poisson(1e5), 2_000)
    table = fit_staleness(values).table.set_index("model")
    assert table["lam"]["poisson"] == pytest.approx(values.mean())
    assert table["nu"]["cmp"] == pytest.approx(1.0, abs=0.15)
    assert np.isfinite(table["bhattacharyya"]).all()


# The picture


def test_the_plot_shows_shares_and_names_models_best_first():
    values = draws(stats.poisson(4.0), 2_000)
    fit = fit_staleness(values, ["geometric", "poisson"])
    ax = fit.plot()
    height, edges, _ = ax.patches[0].get_data()
    assert height[:3] == pytest.approx(np.bincount(values)[:3] / 2_000)
    assert edges[:2].tolist() == [-0.5, 0.5]
    assert [text.get_text().split(",")[0] for text in ax.get_legend().get_texts()] == [
        "observed", "poisson", "geometric"
    ]  # fmt: skip
    assert ax.lines[0].get_ydata()[:3] == pytest.approx(fit.pmf("poisson", [0, 1, 2]))
    assert ax.get_xlabel() == "staleness (updates)"


def test_wide_histograms_are_drawn_in_bars_of_several_values():
    values = draws(stats.geom(1e-3, loc=-1))
    height, edges, _ = fit_staleness(values, ["geometric"]).plot().patches[0].get_data()
    assert 50 < len(height) <= 101
    assert (height * np.diff(edges)).sum() == pytest.approx(1, abs=1e-2)


# Bad input


@pytest.mark.parametrize(
    ("observed", "options", "match"),
    [
        ([], {}, "staleness is empty: no message was used"),
        ([3] * 40, {}, "staleness is 3 in all 40 messages: a constant"),
        ([0, 1, -1], {}, "staleness: value 2 is -1; allowed are whole numbers of at least 0"),
        ([0.0, 1.5], {}, r"staleness: value 1 is 1\.5"),
        ([0.0, np.nan], {}, "staleness: value 1 is nan"),
        ([0.0, np.inf], {}, "staleness: value 1 is inf"),
        (["a"], {}, "one-dimensional array of whole numbers"),
        ([[1, 2]], {}, "one-dimensional array"),
        (3, {}, "one-dimensional array"),
        ([0, 1], {}, "2 values, cmp has 2 parameters: more values"),
        ([0, 1, 2], {"models": ["poison"]}, "unknown staleness model 'poison'. Did you mean 'poisson'"),
        ([0, 1, 2], {"models": []}, "at least one of geometric"),
        ([0, 1, 2], {"models": "cmp"}, "give a list"),
        ([0, 1, 2], {"by": "bhatacharyya"}, "Did you mean 'bhattacharyya'"),
        ([0, 1, 2], {"constraint": "m"}, "give workers="),
        ([0, 1, 2], {"constraint": "m-1", "workers": 1}, "with 1 workers is not allowed"),
        ([0, 1, 2], {"constraint": "n", "workers": 4}, "unknown constraint 'n'"),
        ([0, 1, 2], {"per_worker": True}, "needs a Trace"),
    ],
)
def test_bad_input_is_named(observed, options, match):
    with pytest.raises(ValueError, match=match):
        fit_staleness(observed, **options)


def test_fresh_and_empty_traces_are_refused(fresh):
    with pytest.raises(ValueError, match="staleness is 0 in all 4 messages"):
        fit_staleness(fresh)
    trace = simulate(Cluster(2, Exponential(1.0)), Sync(), wallclock=1e-9, seed=0)
    with pytest.raises(ValueError, match="no message was used"):
        fit_staleness(trace)


def test_workers_and_models_that_were_not_fitted_are_named():
    fit = fit_staleness([0, 1, 2, 2], ["poisson"])
    with pytest.raises(ValueError, match="unknown fitted model 'cmp'"):
        fit.pmf("cmp", [0])
    with pytest.raises(ValueError, match="unknown fitted worker 3"):
        fit.plot(worker=3)
