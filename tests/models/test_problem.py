"""Problems: what they refuse, and their losses and evaluations against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stalegrad.models import Problem, list_models, load_dataset
from stalegrad.models.networks import NETWORKS

SMALL = "fashion-mnist-small"
KEY = jax.random.key(0)


def softmax(**options):
    return Problem("softmax-regression", SMALL, **options)


def cross_entropy(logits, targets):
    logits = logits.astype(float)
    top = logits.max(axis=1, keepdims=True)
    normaliser = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    return (normaliser - logits[np.arange(len(targets)), targets]).mean()


def linear(params):
    layer = jax.tree.leaves(params)
    bias, kernel = sorted((np.asarray(leaf, float) for leaf in layer), key=np.ndim)
    return kernel, bias


def far_params(objective):
    """Parameters far enough from zero for the loss to have something to say."""
    return jax.tree.map(lambda leaf: 10 * leaf, objective.init(KEY))


# Named problems


def test_softmax_regression_has_the_loss_and_gradient_of_the_formula():
    objective = softmax(l2=0.01).objective()
    params = far_params(objective)
    x, y = np.asarray(objective.train[0][:32]), np.asarray(objective.train[1][:32])
    kernel, bias = linear(params)
    flat = x.reshape(32, -1).astype(float)
    logits = flat @ kernel + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    residual = (p - np.eye(10)[y]) / 32

    (loss, _), gradient = jax.value_and_grad(objective.loss, has_aux=True)(params, {}, (x, y), KEY)
    assert float(loss) == pytest.approx(cross_entropy(logits, y) + 0.01 * (kernel**2).sum(), rel=1e-5)
    of_kernel, of_bias = linear(gradient)
    np.testing.assert_allclose(of_kernel, flat.T @ residual + 0.02 * kernel, atol=1e-5)
    np.testing.assert_allclose(of_bias, residual.sum(axis=0), atol=1e-6)


@pytest.mark.parametrize("examples", [1, 999, 1_000, 1_001, 2_000])
def test_evaluation_is_that_of_numpy_over_the_whole_set_whatever_its_length(examples):
    objective = softmax(l2=0.01).objective()
    params = far_params(objective)
    x, y = (np.asarray(array[:examples]) for array in objective.test)
    kernel, bias = linear(params)
    logits = x.reshape(examples, -1) @ kernel + bias
    found = jax.jit(objective.evaluate)(params, {}, (x, y))
    assert float(found["error"]) == pytest.approx((logits.argmax(axis=1) != y).mean(), abs=1.5 / examples)
    assert float(found["loss"]) == pytest.approx(cross_entropy(logits, y) + 0.01 * (kernel**2).sum(), rel=1e-5)


def test_the_data_are_the_data_sets_own_normalised():
    objective, data = softmax().objective(), load_dataset(SMALL)
    assert objective.examples == 10_000
    np.testing.assert_array_equal(objective.train[0], data.normalised("train"))
    np.testing.assert_array_equal(objective.train[1], data.train_targets)
    np.testing.assert_array_equal(objective.test[0], data.normalised("test"))
    np.testing.assert_array_equal(objective.test[1], data.test_targets)


def test_the_same_problem_loads_once():
    assert softmax(l2=0.1).objective() is softmax(l2=0.1, batch_size=8).objective()
    assert softmax(l2=0.1).objective() is not softmax(l2=0.2).objective()


@pytest.mark.parametrize(
    "problem",
    [
        softmax(),
        softmax(l2=0.01, init_scale=0.1, sampling="iid", batch_size=1),
        Problem("mlp", SMALL, hidden=(128, 64), sampling="sharded"),
        Problem("mlp", "mnist", directory="/data/mnist"),
        Problem("resnet-20", "cifar-10", batch_size=128, augment=True, norm="group"),
        Problem("lenet-mindthestep", "cifar-10", init_scale=0.01),
    ],
)
def test_a_named_problem_comes_back_from_its_table(problem):
    again = Problem(**problem.table())
    assert again == problem
    assert hash(again) == hash(problem)
    assert eval(repr(problem), {"Problem": Problem}) == problem


def test_problems_that_differ_are_not_equal():
    different = {softmax(), softmax(batch_size=8), softmax(l2=0.1), softmax(sampling="iid"), Problem("mlp", SMALL)}
    assert len(different) == 5
    assert softmax() != "softmax-regression"


def test_the_order_of_options_does_not_matter():
    a, b = softmax(l2=0.1, init_scale=0.2), softmax(init_scale=0.2, l2=0.1)
    assert (a, hash(a)) == (b, hash(b))
    assert a.objective() is b.objective()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": "mpl"}, "unknown model 'mpl'. Did you mean 'mlp'[?] Allowed: .*mlp, .*softmax-regression"),
        ({"model": ["mlp"]}, r"unknown model \['mlp'\]"),
        ({"dataset": "fashion-mnist-smal"}, "unknown data set .* Did you mean 'fashion-mnist-small'[?]"),
        ({"dataset": [SMALL]}, "unknown data set"),
        (
            {"sampling": "epoch"},
            "unknown sampling 'epoch'. Did you mean 'epochs'[?] Allowed: epochs, iid, sharded",
        ),
        ({"batch_size": 0}, "batch_size = 0 is not allowed: a whole number of at least 1"),
        ({"batch_size": 2.0}, "batch_size = 2.0 is not allowed"),
        ({"batch_size": True}, "batch_size = True is not allowed"),
        (
            {"hiden": (3,)},
            "unknown option of model 'mlp': 'hiden'. Did you mean 'hidden'[?] "
            "Allowed: augment, batch_size, batches, context, directory, hidden, image_size, partition, sampling.",
        ),
        ({"self": 1}, "unknown option of model 'mlp': 'self'"),
        ({"l2": 0.1}, "unknown option of model 'mlp': 'l2'"),
        ({"hidden": 64}, "hidden of model 'mlp' = 64 is not allowed"),
        ({"hidden": [0]}, r"hidden of model 'mlp' = \[0\] is not allowed: .*greater than or equal to 1"),
        ({"hidden": ["wide"]}, r"hidden of model 'mlp' = \['wide'\] is not allowed"),
        ({"model": "softmax-regression", "l2": -1}, "l2 of model 'softmax-regression' = -1 is not allowed"),
        ({"model": "resnet-20", "norm": "layer"}, "norm of model 'resnet-20' = 'layer' is not allowed"),
        ({"model": "softmax-regression", "init_scale": "x"}, "init_scale .* = 'x' is not allowed"),
    ],
)
def test_a_wrong_problem_is_one_sentence_that_says_what_is_wrong(arguments, said):
    with pytest.raises(ValueError, match=said):
        Problem(**{"model": "mlp", "dataset": SMALL, **arguments})


def test_a_batch_larger_than_the_data_is_refused_when_they_are_loaded():
    assert softmax(batch_size=10_000).objective().examples == 10_000
    with pytest.raises(ValueError, match="batch_size = 10001 is not allowed: the data set has 10000 examples"):
        softmax(batch_size=10_001).objective()


def test_every_network_is_listed_with_a_sentence():
    assert list_models().keys() == NETWORKS.keys()
    assert all(list_models().values())


# Problems made of functions


@pytest.mark.parametrize(
    "params", [{"a": jnp.ones(2), "b": jnp.ones(())}, [jnp.ones(2)], (jnp.ones(2), jnp.ones(1)), jnp.ones(3)]
)
def test_parameters_may_be_any_pytree(params):
    def loss(params, batch, key):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))

    objective = Problem.from_functions(lambda key: params, loss).objective()
    assert jax.tree.structure(objective.init(KEY)) == jax.tree.structure(params)
    assert objective.examples == 0
    assert float(objective.evaluate(params, (), None)["loss"]) == sum(
        leaf.size for leaf in jax.tree.leaves(params)
    )


def test_functions_may_come_with_data_in_any_pytree():
    rows, targets = np.arange(12.0).reshape(6, 2), np.arange(6.0)

    def loss(w, batch, key):
        return jnp.mean((batch["x"] @ w - batch["y"]) ** 2)

    data = {"x": rows, "y": targets}
    problem = Problem.from_functions(lambda key: jnp.ones(2), loss, train=data, test=data, batch_size=3)
    objective = problem.objective()
    assert objective.examples == 6
    found = objective.evaluate(jnp.ones(2), (), objective.test)
    assert float(found["loss"]) == pytest.approx(((rows.sum(axis=1) - targets) ** 2).mean())


def test_an_evaluation_of_your_own_replaces_the_loss():
    problem = Problem.from_functions(
        lambda key: jnp.ones(2),
        lambda w, b, k: jnp.sum(w),
        evaluate=lambda w, data: {"loss": jnp.max(w), "error": 0.5},
    )
    assert problem.objective().evaluate(jnp.arange(3.0), (), None) == {"loss": 2.0, "error": 0.5}


def functions(**options):
    return Problem.from_functions(lambda key: jnp.ones(1), lambda w, batch, key: jnp.sum(w**2), **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 3}, "batch_size = 3 is not allowed: give it with training data, and only then"),
        ({"train": jnp.ones(3)}, "batch_size = None is not allowed: give it with training data"),
        ({"train": jnp.ones(3), "batch_size": 0}, "batch_size = 0 is not allowed"),
        ({"train": (jnp.ones(3), jnp.ones(4)), "batch_size": 1}, r"arrays of different lengths: \[3, 4\]"),
        ({"sampling": "random"}, "unknown sampling 'random'"),
    ],
)
def test_functions_that_do_not_fit_their_data_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        functions(**options)


def test_a_batch_larger_than_the_data_of_functions_is_refused_too():
    with pytest.raises(ValueError, match="batch_size = 4 is not allowed: the data set has 3 examples"):
        functions(train=jnp.ones(3), batch_size=4).objective()


def test_a_problem_made_of_functions_equals_only_itself_and_has_no_table():
    problem = functions()
    assert problem == problem
    assert problem != functions()
    assert problem != softmax()
    assert problem.objective() is problem.objective()
    assert not problem.named
    with pytest.raises(ValueError, match="runs in this process only and cannot be written"):
        problem.table()
