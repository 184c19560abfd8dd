"""Partitions: laws in closed form, limits, what every one of them promises, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from scipy import stats

from stalegrad.models import Assigned, ClassesPerWorker, Dirichlet, Partition, Problem, Shuffled
from stalegrad.models.partitions import PARTITIONS, as_partition, split_of
from stalegrad.models.partitions.skewed import _successive

SMALL = "fashion-mnist-small"
KINDS = [Shuffled(), Dirichlet(0.05), Dirichlet(3.0), Dirichlet(0.05, "equal"), Dirichlet(3.0, "equal")]


def labels(*sizes):
    """Return the classes of a shuffled data set with so many examples of each."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))


def table(partition, kinds, workers, least, seed):
    """Return examples of each class by worker, (classes, workers)."""
    shards = split_of(partition, kinds, workers, least, seed)
    return np.transpose([np.bincount(kinds[shard], minlength=kinds.max() + 1) for shard in shards])


def problem_of(train, batch_size=1, **options):
    return Problem.from_functions(
        lambda key: jnp.zeros(1), lambda w, batch, key: jnp.sum(w), train=train, batch_size=batch_size, **options
    )


# What every partition promises


@pytest.mark.parametrize("partition", KINDS, ids=str)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6), workers=st.integers(1, 9),
    seed=st.integers(0, 2**64 - 1), data=st.data(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_every_example_is_used_once_and_every_worker_gets_a_mini_batch(partition, sizes, workers, seed, data):
    kinds = labels(*sizes)
    if len(kinds) < workers:
        return
    least = data.draw(st.integers(1, len(kinds) // workers))
    shards = split_of(partition, kinds, workers, least, seed)
    assert np.bincount(np.concatenate(shards), minlength=len(kinds)).tolist() == [1] * len(kinds)
    assert min(map(len, shards)) >= least
    if partition in (Shuffled(), Dirichlet(0.05, "equal"), Dirichlet(3.0, "equal")):
        assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("partition", [*KINDS, ClassesPerWorker(2)], ids=str)
def test_a_seed_decides_the_shards(partition):
    kinds = labels(40, 40, 40)

    def split(seed):
        return [shard.tolist() for shard in split_of(partition, kinds, 3, 4, seed)]

    assert split(5) == split(5)
    assert split(5) != split(6)
    assert split(5) != split(5 + 2**32)


def test_shuffled_shards_are_those_that_sharded_sampling_always_had():
    rng = np.random.default_rng(np.random.SeedSequence(3, spawn_key=(102,)))
    expected = np.array_split(rng.permutation(50), 4)
    for shards in (
        split_of(Shuffled(), np.zeros(50, int), 4, 1, 3),
        problem_of(np.zeros(50), sampling="sharded").split(4, 3),
    ):
        assert [shard.tolist() for shard in shards] == [shard.tolist() for shard in expected]


# Dirichlet


@pytest.mark.parametrize("alpha", [0.1, 1.0, 20.0])
def test_counts_of_free_shards_are_dirichlet_multinomial(alpha):
    n, workers, repeats = 40, 5, 3000
    counts = np.array([table(Dirichlet(alpha), labels(n, n), workers, 0, seed) for seed in range(repeats)])
    variance = n * 0.2 * 0.8 * (n + workers * alpha) / (1 + workers * alpha)
    error = 4 * (variance / repeats) ** 0.5
    assert counts.mean(axis=0) == pytest.approx(np.full((2, workers), n / workers), abs=error)
    assert counts.var() == pytest.approx(variance, rel=0.04)
    of_classes = np.corrcoef(counts[:, 0, 0], counts[:, 1, 0])[0, 1]
    assert abs(of_classes) < 4 / repeats**0.5  # classes are divided independently


@pytest.mark.parametrize("sizes", ["free", "equal"])
def test_for_large_alpha_shards_are_iid(sizes):
    """Chi-square of class by worker: (K - 1)(W - 1) degrees of freedom where workers do not differ."""
    kinds, workers = labels(300, 500, 200, 200), 6
    tables = [table(Dirichlet(1e9, sizes), kinds, workers, 0, seed) for seed in range(400)]
    found = [stats.chi2_contingency(counts).statistic for counts in tables]
    assert stats.kstest(found, stats.chi2(3 * 5).cdf).pvalue > 0.01
    skewed = stats.chi2_contingency(table(Dirichlet(3.0, sizes), kinds, workers, 0, 0)).pvalue
    assert skewed < 1e-6


@pytest.mark.parametrize("alpha", [1e-300, 1e-4])
def test_for_small_alpha_every_class_has_one_worker_or_every_worker_one_class(alpha):
    for seed in range(20):
        free = table(Dirichlet(alpha), labels(30, 20, 10), 4, 0, seed)
        assert ((free > 0).sum(axis=1) == 1).all()
        equal = table(Dirichlet(alpha, "equal"), labels(40, 40, 40, 40), 8, 0, seed)
        assert ((equal > 0).sum(axis=0) == 1).all()
    chosen = [table(Dirichlet(alpha), labels(5), 4, 0, seed)[0].argmax() for seed in range(400)]
    assert stats.chisquare(np.bincount(chosen, minlength=4)).pvalue > 0.01  # every worker is as likely


def test_draws_without_replacement_have_wallenius_distribution():
    rng, left, rates, size = np.random.default_rng(0), np.array([30, 50]), np.array([3.0, 1.0]), 25
    found = [_successive(left, rates, size, rng)[0] for _ in range(4000)]
    law = stats.nchypergeom_wallenius(80, 30, 25, 3.0)
    assert np.mean(found) == pytest.approx(law.mean(), abs=4 * law.std() / 4000**0.5)
    assert np.std(found) == pytest.approx(law.std(), rel=0.05)
    assert _successive(left, np.array([0.0, 1.0]), 60, rng).tolist() == [0, 50]  # no more than there are


def test_a_worker_with_too_few_examples_is_filled_up_from_the_largest_shard():
    for seed in range(20):
        before = table(Dirichlet(1e-6), labels(50, 30), 4, 0, seed).sum(axis=0)
        after = table(Dirichlet(1e-6), labels(50, 30), 4, 8, seed).sum(axis=0)
        poor = before < 8
        assert (after[poor] == 8).all()
        assert after.sum() == 80
        rich = before.argmax()
        assert after[rich] < before[rich]
        others = ~poor & (np.arange(4) != rich)
        assert (after[others] == before[others]).all()


# Classes per worker, and given ones


@pytest.mark.parametrize(("classes", "workers"), [(1, 5), (2, 3), (2, 7), (3, 4), (5, 6)])
def test_every_worker_holds_so_many_classes_and_workers_share_them_equally(classes, workers):
    for seed in range(10):
        counts = table(ClassesPerWorker(classes), labels(60, 60, 60, 60, 60), workers, 1, seed)
        assert ((counts > 0).sum(axis=0) == classes).all()
        holders = (counts > 0).sum(axis=1)
        assert holders.max() - holders.min() <= 1
        for row in counts:
            assert np.ptp(row[row > 0]) <= 1


def test_classes_are_dealt_at_random():
    tables = [table(ClassesPerWorker(2), labels(9, 9, 9), 3, 1, seed) for seed in range(300)]
    _, counts = np.unique([np.flatnonzero(found[:, 0]) for found in tables], axis=0, return_counts=True)
    assert len(counts) == 3
    assert stats.chisquare(counts).pvalue > 0.01


def test_rows_that_are_assigned_stay_where_they_are():
    problem = problem_of(np.arange(6.0), batch_size=2, partition=Assigned([1, 0, 1, 1, 0, 1]))
    assert [shard.tolist() for shard in problem.split(2, seed=9)] == [[1, 4], [0, 2, 3, 5]]
    assert Assigned(np.array([0, 1])) == Assigned(workers=(0, 1))
    again = problem.but(partition=Dirichlet(0.5), labels=[0, 0, 0, 1, 1, 1]).split(2, seed=1)
    owner = np.empty(6, int)
    for worker, shard in enumerate(again):
        owner[shard] = worker
    kept = problem.but(partition=Assigned(owner)).split(2)
    assert [sorted(shard) for shard in again] == [sorted(shard) for shard in kept]


# Labels and reports


def test_the_table_counts_labels_by_worker():
    problem = Problem("softmax-regression", SMALL, partition=Dirichlet(0.3))
    found = problem.shards(6, seed=2)
    targets = np.asarray(problem.objective().train[1])
    for worker, shard in enumerate(problem.split(6, seed=2)):
        for kind in range(10):
            assert found.loc[kind, worker] == sum(targets[i] == kind for i in shard)
    assert (found.index.name, found.columns.name) == ("class", "worker")
    assert (found.sum(axis=1) == 1000).all()


def test_labels_are_targets_or_given_and_may_be_any_whole_numbers():
    x, y = np.zeros((6, 2)), np.array([7, -1, 7, 7, -1, 7])
    by_targets = problem_of((x, y), partition=Dirichlet(1.0)).shards(2)
    by_labels = problem_of(x, partition=Dirichlet(1.0), labels=y).shards(2)
    assert by_targets.equals(by_labels)
    assert by_targets.sum(axis=1).to_dict() == {-1: 2, 7: 4}
    assert problem_of(x, sampling="sharded").shards(2).loc["all"].tolist() == [3, 3]


def test_images_in_folders_have_the_classes_of_their_folders(tmp_path):
    for split, name, count in [("train", "ant", 6), ("train", "bee", 4), ("test", "ant", 1), ("test", "bee", 1)]:
        (tmp_path / split / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8)).save(tmp_path / split / name / f"{i}.png")
    problem = Problem(
        "softmax-regression", "image-folder", directory=tmp_path, image_size=8, batch_size=2,
        partition=ClassesPerWorker(1),
    )  # fmt: skip
    assert sorted(problem.shards(2).sum().tolist()) == [4, 6]
    own = problem.worker_objectives(2)
    for worker, shard in enumerate(problem.split(2)):
        inputs, targets = own[worker].train.fetch(np.arange(len(shard)))
        assert len(inputs) == own[worker].examples == len(shard)
        assert set(targets.tolist()) == set(problem.objective().train.targets[shard].tolist())


def test_objectives_of_workers_add_up_to_that_of_the_problem():
    rows = np.random.default_rng(0).normal(size=(30, 3))
    problem = Problem.from_functions(
        lambda key: jnp.zeros(3), lambda w, x, key: jnp.mean((x - w) ** 2), train=rows, batch_size=2,
        partition=Dirichlet(0.5), labels=np.arange(30) % 3,
    )  # fmt: skip
    own, w = problem.worker_objectives(4), jnp.ones(3)
    for objective, shard in zip(own, problem.split(4), strict=True):
        expected = ((rows[shard] - 1) ** 2).mean()
        assert float(objective.evaluate(w, (), objective.train)["loss"]) == pytest.approx(expected, rel=1e-5)
    total = sum(o.examples * float(o.evaluate(w, (), o.train)["loss"]) for o in own)
    assert total / 30 == pytest.approx(((rows - 1) ** 2).mean(), rel=1e-5)


# As specs


@pytest.mark.parametrize(
    "partition", [*KINDS, ClassesPerWorker(2), Assigned((0, 1) * 5000)], ids=lambda p: str(p)[:40]
)
def test_a_problem_with_a_partition_comes_back_from_its_table(partition):
    problem = Problem("mlp", SMALL, partition=partition, batches="by-message")
    again = Problem(**problem.table())
    assert (again, hash(again)) == (problem, hash(problem))
    assert again.sampling == "sharded"
    assert again.partition == partition
    assert as_partition(PARTITIONS.to_table(partition)) == partition


def test_sharded_sampling_is_the_shuffled_partition_under_either_name():
    sharded = Problem("mlp", SMALL, sampling="sharded")
    names = (Shuffled(), {"partition": "iid"}, {"partition": "shuffled"})
    same = [Problem("mlp", SMALL, partition=name) for name in names]
    assert {sharded, *same} == {sharded}
    assert sharded.table() == {"model": "mlp", "dataset": SMALL, "batch_size": 32, "sampling": "sharded"}
    assert sharded.but(sampling="epochs").partition is None
    assert same[0].but(partition=None) == sharded
    assert Problem("mlp", SMALL, partition=Dirichlet(1.0)).but(partition=None) == Problem("mlp", SMALL)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"partition": {"partition": "dirichlt"}}, "unknown partition 'dirichlt'. Did you mean 'dirichlet'"),
        ({"partition": {"partition": "dirichlet"}}, "partition 'dirichlet' needs alpha"),
        ({"partition": {"partition": "dirichlet", "alpha": 0}}, "alpha of dirichlet = 0 is not allowed"),
        ({"partition": {"partition": "dirichlet", "alpha": 1.0, "sizes": "odd"}}, "sizes of dirichlet = 'odd'"),
        ({"partition": {"partition": "classes-per-worker", "classes": 0}}, "classes of classes-per-worker = 0"),
        ({"partition": {"partition": "assigned", "workers": [0, -1]}}, "workers of assigned = .* is not allowed"),
        ({"partition": 0.1}, r"partition = 0.1 is not allowed: give e.g. Dirichlet\(alpha=0.1\)"),
        ({"partition": Shuffled(), "sampling": "epochs"}, "sampling = 'epochs' is not allowed with a partition"),
        ({"partition": Dirichlet(1.0), "sampling": "iid"}, "sampling = 'iid' is not allowed with a partition"),
        ({"batches": "by-mesage"}, "unknown batches 'by-mesage'. Did you mean 'by-message'[?]"),
    ],
)
def test_a_wrong_partition_is_refused_when_the_problem_is_made(options, said):
    with pytest.raises(ValueError, match=said):
        Problem("mlp", SMALL, **options)


@pytest.mark.parametrize(
    ("partition", "workers", "said"),
    [
        (Dirichlet(0.1), 400, "batch_size = 32 is not allowed: 10000 examples sharded over 400 workers leave 25"),
        (
            ClassesPerWorker(11),
            4,
            "classes of classes-per-worker = 11 is not allowed: for 10 classes .* give 3 to 10",
        ),
        (ClassesPerWorker(2), 4, "classes of classes-per-worker = 2 is not allowed: for 10 classes and 4 workers"),
        (Assigned((0, 1)), 2, "workers of assigned has 2 entries, but there are 10000 training examples"),
        (Assigned((0, 3) * 5000), 2, r"workers of assigned \[1\] = 3 is not allowed: workers are 0 to 1"),
        (Assigned((0,) * 9999 + (1,)), 2, "workers of assigned gives worker 1 1 examples: a mini-batch has 32"),
        (Assigned((0, 1) * 5000), 3, "workers of assigned gives worker 2 0 examples"),
    ],
)
def test_data_that_cannot_be_divided_so_are_refused_whatever_the_seed(partition, workers, said):
    problem = Problem("softmax-regression", SMALL, partition=partition)
    with pytest.raises(ValueError, match=said):
        problem.check_workers(workers)
    with pytest.raises(ValueError, match=said):
        problem.split(workers)


def test_a_class_with_fewer_examples_than_workers_that_take_it_is_refused():
    with pytest.raises(
        ValueError, match="with up to 3 workers per class, a class of 2 examples, and shards of 33"
    ):
        split_of(ClassesPerWorker(2), labels(100, 100, 2), 4, 10, 0)
    with pytest.raises(ValueError, match="shards of 6 in the worst case, mini-batches of 7 are too large"):
        split_of(ClassesPerWorker(2), labels(100, 9, 9), 4, 7, 0)


def test_examples_without_classes_are_refused():
    said = "the training examples have no classes; a problem of functions may give labels="
    with pytest.raises(ValueError, match=said):
        Problem("transformer", "shakespeare", partition=Dirichlet(1.0))
    for train in (np.zeros(4), {"x": np.zeros(4), "y": np.zeros(4, int)}, (np.zeros(4), np.zeros(4))):
        with pytest.raises(ValueError, match=said):
            problem_of(train, partition=ClassesPerWorker(1))
    assert Problem("transformer", "shakespeare", partition=Shuffled()).sampling == "sharded"
    for wrong in ([0, 1], [[0], [1], [0], [1]], [0.0, 1.0, 0.0, 1.0]):
        with pytest.raises(ValueError, match="give a whole number for each of the 4 training examples"):
            problem_of(np.zeros(4), partition=ClassesPerWorker(1), labels=wrong)
    with pytest.raises(ValueError, match="labels, partition is not allowed: the problem has no training data"):
        problem_of(None, batch_size=None, partition=Dirichlet(1.0), labels=[0])


def test_shards_are_asked_for_where_there_are_none():
    with pytest.raises(ValueError, match="shards of a problem: with sampling = 'epochs' all workers draw"):
        Problem("mlp", SMALL).split(2)


class Own(Partition):
    """A partition of an author; what it returns is set by the test."""

    def split(self, labels, workers, least, rng):
        return self.made


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([[0, 1, 2, 3]], "partition own made 1 shards for 2 workers"),
        ([[0, 1], [1, 2]], "partition own does not give every example of 4 to exactly one worker"),
        ([[0, 1], [2]], "does not give every example"),
        ([[0, 1, 2], [3]], "partition own leaves worker 1 1 examples: a mini-batch has 2"),
    ],
)
def test_a_partition_of_your_own_is_checked(monkeypatch, made, said):
    monkeypatch.setattr(Own, "made", made, raising=False)
    with pytest.raises(ValueError, match=said):
        problem_of(np.zeros(4), batch_size=2, partition=Own()).split(2)


def test_a_partition_that_says_nothing_is_told_so():
    with pytest.raises(TypeError, match=r"Partition does not say who holds which example: define split\(\)"):
        problem_of(np.zeros(4), partition=Partition()).split(2)
