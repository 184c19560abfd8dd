"""The networks against numpy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.nn import initializers

from stalegrad.models.networks import NETWORKS, mlp, softmax_regression, starts
from stalegrad.models.networks.blocks import conv, norm_layer
from stalegrad.models.networks.layers import SameConv, shifted_conv

SHAPE, CLASSES = (28, 28, 1), 10
INPUTS = np.random.default_rng(0).normal(size=(7, *SHAPE)).astype(np.float32)
MLP = mlp(SHAPE, CLASSES)  # one for all tests, because every network compiles its initialisation
SOFTMAX = softmax_regression(SHAPE, CLASSES)


def layers(params):
    """(kernel, bias) of every layer, in order."""
    return [
        (np.asarray(params["layers"][i]["kernel"]), np.asarray(params["layers"][i]["bias"]))
        for i in sorted(params["layers"])
    ]


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_softmax_regression_is_one_linear_layer():
    network = SOFTMAX
    params = network.init(jax.random.key(0))
    [(kernel, bias)] = layers(params)
    assert count(params) == 784 * 10 + 10
    np.testing.assert_allclose(network.apply(params, INPUTS), INPUTS.reshape(7, -1) @ kernel + bias, atol=1e-6)


def test_softmax_regression_starts_as_normal_with_standard_deviation_one_hundredth():
    network = SOFTMAX
    [(kernel, _)] = layers(network.init(jax.random.key(0)))
    assert abs(kernel.mean()) < 4 * 0.01 / np.sqrt(kernel.size)
    assert kernel.std() == pytest.approx(0.01, rel=0.04)
    biases = np.concatenate([layers(network.init(jax.random.key(s)))[0][1] for s in range(30)])
    assert biases.std() == pytest.approx(0.01, rel=0.2)


def test_init_scale_scales_the_start():
    [(kernel, _)] = layers(softmax_regression(SHAPE, CLASSES, init_scale=0.5).init(jax.random.key(0)))
    assert kernel.std() == pytest.approx(0.5, rel=0.04)


def test_l2_is_the_squared_frobenius_norm_of_the_weights_without_the_bias():
    network = softmax_regression(SHAPE, CLASSES, l2=0.3)
    params = jax.tree.map(lambda leaf: leaf + 1.0, network.init(jax.random.key(0)))
    [(kernel, _)] = layers(params)
    assert float(network.penalty(params)) == pytest.approx(0.3 * (kernel.astype(float) ** 2).sum(), rel=1e-5)
    slope = jax.grad(network.penalty)(params)["layers"]
    [(of_kernel, of_bias)] = layers({"layers": slope})
    np.testing.assert_allclose(of_kernel, 0.6 * kernel, rtol=1e-5)
    assert not of_bias.any()


def test_without_l2_there_is_no_penalty():
    network = SOFTMAX
    assert float(network.penalty(network.init(jax.random.key(0)))) == 0


def test_mlp_has_as_many_parameters_as_its_layers_say():
    assert count(MLP.init(jax.random.key(0))) == 784 * 64 + 64 + 64 * 10 + 10
    deep = jax.eval_shape(mlp((2, 3), 4, hidden=(5, 6)).init, jax.random.key(0))
    assert count(deep) == (6 * 5 + 5) + (5 * 6 + 6) + (6 * 4 + 4)


@pytest.mark.parametrize("hidden", [(64,), (8, 5, 3)])
def test_mlp_forward_pass_is_relu_between_linear_layers(hidden):
    network = MLP if hidden == (64,) else mlp(SHAPE, CLASSES, hidden=hidden)
    params = jax.tree.map(lambda leaf: leaf + 0.01, network.init(jax.random.key(1)))  # biases other than 0
    *inner, (kernel, bias) = layers(params)
    x = INPUTS.reshape(7, -1).astype(float)
    for w, b in inner:
        x = np.maximum(x @ w + b, 0)
    np.testing.assert_allclose(network.apply(params, INPUTS), x @ kernel + bias, rtol=1e-4, atol=1e-4)


def test_mlp_starts_he_normal_with_zero_biases():
    (kernel, bias), (_, last) = layers(MLP.init(jax.random.key(0)))
    assert kernel.std() == pytest.approx(np.sqrt(2 / 784), rel=0.03)
    assert not bias.any()
    assert not last.any()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (starts.normal(0.3), initializers.normal(0.3)),
        (starts.he_normal, initializers.he_normal()),
        (starts.lecun_normal, initializers.lecun_normal()),
        (starts.scaled(2.0, "out", truncated=False), initializers.variance_scaling(2.0, "fan_out", "normal")),
    ],
)
def test_laws_drawn_in_one_dimension_are_those_of_jax_bit_for_bit(ours, theirs):
    shape, draw = (1, 2, 2, 3), functools.partial(jax.jit, static_argnums=(1, 2))
    found, expected = (np.asarray(draw(start)(jax.random.key(3), shape, jnp.float32)) for start in (ours, theirs))
    assert found.shape == shape
    assert found.tobytes() == expected.tobytes()


# All networks

LONG = {"resnet-32", "resnet-44", "resnet-56", "resnet-50", "wrn-16-4"}  # to compile
EVERY = [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in NETWORKS]
IMAGES = np.random.default_rng(1).normal(size=(4, 16, 16, 3)).astype(np.float32)
TOKENS = np.random.default_rng(1).integers(0, 11, (4, 7)).astype(np.int32)


@functools.cache
def example(name):
    """A network, its parameters (for key 0) and inputs for it."""
    inputs = IMAGES if NETWORKS[name].takes == "images" else TOKENS
    network = NETWORKS[name](inputs.shape[1:], 11)
    return network, network.init(jax.random.key(0)), inputs


@functools.cache
def compiled_apply(name):
    return jax.jit(example(name)[0].apply)


@pytest.mark.parametrize("name", EVERY)
def test_a_network_is_a_function_of_its_key_with_a_row_of_logits_per_target(name):
    network, a, inputs = example(name)
    b, c = (network.init(jax.random.key(seed)) for seed in (0, 1))
    assert jax.tree.all(jax.tree.map(np.array_equal, a, b))
    assert not jax.tree.all(jax.tree.map(np.array_equal, a, c))
    assert all(isinstance(leaf, jax.Array) and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(a))
    apply = compiled_apply(name)
    logits = apply(a, inputs)
    assert logits.shape == ((4, 11) if NETWORKS[name].takes == "images" else (4, 7, 11))
    others = np.concatenate([inputs[:2], inputs[2:][::-1] // 2])  # the rest of the batch does not matter
    np.testing.assert_allclose(logits[:2], apply(a, others)[:2], rtol=1e-4, atol=1e-5)
    assert not np.allclose(logits[2:], apply(a, others)[2:])


@pytest.mark.parametrize("name", EVERY)
def test_a_few_steps_lower_the_loss_of_a_mini_batch(name):
    network, params, inputs = example(name)
    targets = np.arange(4) if NETWORKS[name].takes == "images" else np.roll(TOKENS, -1, axis=1)

    @jax.jit
    def step(params):
        def loss(params):
            logits, stats = network.train(params, inputs, network.stats)
            assert stats == {}
            return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

        value, slope = jax.value_and_grad(loss)(params)
        size = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(slope)))
        return value, jax.tree.map(lambda p, g: p - 0.1 * g / size, params, slope)

    values = []
    for _ in range(6):
        value, params = step(params)
        values.append(float(value))
    assert min(values[1:]) < 0.95 * values[0]


@pytest.mark.parametrize(
    ("name", "shape", "classes", "parameters"),
    [
        ("cnn-mindthestep", (28, 28, 1), 10, (9 * 4 + 4) + (9 * 4 * 8 + 8) + (200 * 128 + 128) + (128 * 10 + 10)),
        (
            "lenet-mindthestep",
            (32, 32, 3),
            10,
            (25 * 3 * 6 + 6) + (25 * 6 * 16 + 16) + (400 * 120 + 120) + (120 * 10 + 10),
        ),
        ("lenet-adasync", (32, 32, 3), 10, 456 + 2_416 + 48_120 + (120 * 84 + 84) + (84 * 10 + 10)),
        ("resnet-20", (32, 32, 3), 10, 272_474),
        ("resnet-32", (32, 32, 3), 10, 466_906),
        ("resnet-44", (32, 32, 3), 10, 661_338),
        ("resnet-56", (32, 32, 3), 10, 855_770),
        ("wrn-16-4", (32, 32, 3), 10, 2_748_890),
        ("resnet-50", (224, 224, 3), 1_000, 25_557_032),
        ("transformer", (128,), 76, 4 * (12 * 128**2 + 13 * 128) + 2 * 128 + (76 + 128) * 128),
    ],
)
def test_networks_have_the_published_number_of_parameters(name, shape, classes, parameters):
    network = NETWORKS[name](shape, classes)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == parameters
    assert network.stats == {}
    inputs = jax.ShapeDtypeStruct((2, *shape), jnp.int32 if NETWORKS[name].takes == "text" else jnp.float32)
    logits = jax.eval_shape(network.apply, shapes, inputs)
    assert logits.shape == (2, *([128] if NETWORKS[name].takes == "text" else []), classes)


# Small convolutional networks


def slow_convolution(images, kernel, bias):
    rows, columns = kernel.shape[:2]
    height, width = images.shape[1] - rows + 1, images.shape[2] - columns + 1
    out = np.zeros((len(images), height, width, kernel.shape[3]))
    for y in range(height):
        for x in range(width):
            window = images[:, y : y + rows, x : x + columns]
            out[:, y, x] = np.tensordot(window, kernel, axes=3) + bias
    return out


def slow_pool(images):
    height, width = images.shape[1] // 2, images.shape[2] // 2
    corners = [images[:, i : 2 * height : 2, j : 2 * width : 2] for i in (0, 1) for j in (0, 1)]
    return np.max(corners, axis=0)


@pytest.mark.parametrize("name", ["cnn-mindthestep", "lenet-mindthestep", "lenet-adasync"])
def test_small_cnns_convolve_pool_and_end_in_linear_layers(name):
    rng, network = np.random.default_rng(2), NETWORKS[name]((17, 19, 3), 5)
    images, shapes = rng.normal(size=(3, 17, 19, 3)), jax.eval_shape(network.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.normal(0.02, 0.2, leaf.shape).astype(np.float32), shapes)
    entries = [params["layers"][i] for i in sorted(params["layers"])]
    x = images
    for entry in entries:
        entry = entry.get("native", entry)
        kernel, bias = np.asarray(entry["kernel"], float), np.asarray(entry["bias"], float)
        if kernel.ndim == 4:
            x = slow_pool(np.maximum(slow_convolution(x, kernel, bias), 0))
        else:
            x = x.reshape(3, -1) @ kernel + bias
            x = x if entry is entries[-1] else np.maximum(x, 0)
    found = jax.jit(network.apply)(params, images.astype(np.float32))
    np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-4)


def test_a_convolution_on_cpu_has_the_values_and_gradients_of_the_native_one():
    rng = np.random.default_rng(3)
    images, kernel = rng.normal(size=(2, 9, 8, 3)), rng.normal(size=(5, 3, 3, 4))

    def native(images, kernel):
        return jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    out, pull = jax.vjp(shifted_conv, *map(jnp.asarray, (images, kernel)))
    expected, pull_native = jax.vjp(native, *map(jnp.asarray, (images, kernel)))
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    for found, wanted in zip(pull(out), pull_native(out), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (5, 1)])
def test_a_convolution_of_residual_networks_has_the_values_and_gradients_of_the_native_one(size, stride):
    rng = np.random.default_rng(4)
    images = jnp.asarray(rng.normal(size=(3, 7, 6, 4)), jnp.float32)
    ours = SameConv(4, 5, size, stride, rngs=nnx.Rngs(0))
    padding = size // 2
    native = nnx.Conv(4, 5, (size, size), stride, padding=padding, use_bias=False, rngs=nnx.Rngs(0))

    def out_and_gradients(convolution):
        graph, state = nnx.split(convolution)

        @jax.jit
        def both(state, images):
            out, pull = jax.vjp(lambda state, images: nnx.merge(graph, state)(images), state, images)
            return out, *pull(jnp.sin(out))

        return jax.tree.leaves(both(state, images))

    found, wanted = map(out_and_gradients, (ours, native))
    assert len(found) == 3
    for ours, native in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, native, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "cnn-mindthestep",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("lenet-mindthestep", "lenet-adasync")),
    ],
)
def test_on_cpu_small_cnns_use_no_native_convolution_so_that_they_compile_well_inside_loops(name):
    network, params, inputs = example(name)
    native = "conv_general_dilated" in str(jax.make_jaxpr(network.apply)(params, inputs))
    assert native == (jax.default_backend() != "cpu")


def test_init_scale_draws_weights_and_biases_of_a_cnn_from_a_normal_law():
    network = NETWORKS["cnn-mindthestep"]((10, 10, 1), 10, init_scale=0.01)
    leaves = jax.tree.leaves(network.init(jax.random.key(0)))
    for kind in ([x for x in leaves if x.ndim == 1], [x for x in leaves if x.ndim > 1]):
        drawn = np.concatenate([np.ravel(leaf) for leaf in kind])
        assert drawn.std() == pytest.approx(0.01, rel=5 / np.sqrt(2 * len(drawn)))


def test_images_that_are_too_small_for_a_cnn_are_refused():
    with pytest.raises(ValueError, match="'lenet-adasync' cannot take images of 12 x 32 pixels: 2 convolutions"):
        NETWORKS["lenet-adasync"]((12, 32, 3), 10)


# Residual networks


@pytest.fixture(scope="module")
def batch_norm():
    """ResNet-20 with batch norm, training and evaluation compiled; its parameters are those with group norm."""
    network, (_, params, _) = NETWORKS["resnet-20"](IMAGES.shape[1:], 11, norm="batch"), example("resnet-20")
    return params, network.stats, jax.jit(network.train), jax.jit(network.apply)


@pytest.mark.slow
def test_batch_norm_carries_running_statistics_with_a_momentum_of_one_tenth(batch_norm):
    params, start, train, _ = batch_norm
    _, stats = train(params, IMAGES, start)
    assert jax.tree.structure(stats) == jax.tree.structure(start)
    assert all((leaf == 0).all() or (leaf == 1).all() for leaf in jax.tree.leaves(start))
    convolved = np.asarray(
        jax.lax.conv_general_dilated(
            IMAGES, params["layers"][0]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    )
    np.testing.assert_allclose(stats["layers"][1]["mean"], 0.1 * convolved.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(stats["layers"][1]["var"], 0.9 + 0.1 * convolved.var((0, 1, 2)), rtol=1e-4)


@pytest.mark.slow
def test_batch_norm_uses_the_batch_in_training_and_the_statistics_in_evaluation(batch_norm):
    params, stats, train, apply = batch_norm
    others = np.concatenate([IMAGES[:2], 3 * IMAGES[2:] + 1])
    assert np.abs(train(params, IMAGES, stats)[0] - train(params, others, stats)[0])[:2].max() > 1e-2
    np.testing.assert_allclose(apply(params, IMAGES, stats)[:2], apply(params, others, stats)[:2], atol=1e-4)
    for _ in range(60):  # until they are those of this batch
        trained, stats = train(params, IMAGES, stats)
    np.testing.assert_allclose(apply(params, IMAGES, stats), trained, rtol=2e-2, atol=2e-2)


def test_group_norm_has_two_channels_or_more_in_each_of_at_most_32_groups():
    assert [norm_layer("group", nnx.Rngs(0), c).num_groups for c in (16, 32, 64, 256)] == [8, 16, 32, 32]


def test_a_stride_of_two_halves_an_image_as_the_papers_code_does():
    """Padded by one on both sides: the first output pixel is centred on the first input pixel."""
    layer = conv(1, 1, 3, 2, nnx.Rngs(0))
    image = np.zeros((1, 8, 8, 1), np.float32)
    image[0, 0, 0, 0] = 1.0
    np.testing.assert_allclose(layer(image)[0, 0, 0, 0], layer.kernel[...][1, 1, 0, 0], rtol=1e-6)
    assert layer(image).shape == (1, 4, 4, 1)


# The transformer


def test_a_transformer_does_not_look_ahead():
    _, params, tokens = example("transformer")
    changed = tokens.copy()
    changed[:, 4] = (changed[:, 4] + 1) % 11
    before, after = (np.asarray(compiled_apply("transformer")(params, x)) for x in (tokens, changed))
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert (np.abs(before[:, 4:] - after[:, 4:]).max(axis=(0, 2)) > 1e-4).all()


def test_a_transformer_starts_near_the_loss_of_guessing():
    _, params, tokens = example("transformer")
    logits = compiled_apply("transformer")(params, tokens)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, np.roll(tokens, -1, axis=1)).mean()
    assert float(loss) == pytest.approx(np.log(11), rel=0.1)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="width = 128 is not allowed: a multiple of heads = 3"):
        NETWORKS["transformer"]((8,), 11, heads=3)
