"""``stalegrad cite``: the references of what a spec uses, as BibTeX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stalegrad.policies.papers import REFERENCES, Paper, entry

if TYPE_CHECKING:
    from stalegrad.simulator import Experiment

YEAR = "2026"
"""Year of this version."""

DATA = {
    "xiao2017": Paper(
        "Xiao, Rasul, Vollgraf",
        "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
        "2017",
        "https://arxiv.org/abs/1708.07747",
    ),
    "lecun1998": Paper(
        "LeCun, Bottou, Bengio, Haffner",
        "Gradient-Based Learning Applied to Document Recognition",
        "Proceedings of the IEEE 1998",
        "https://doi.org/10.1109/5.726791",
    ),
    "krizhevsky2009": Paper(
        "Krizhevsky",
        "Learning Multiple Layers of Features from Tiny Images",
        "2009",
        "https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf",
    ),
    "marcus1993": Paper(
        "Marcus, Santorini, Marcinkiewicz",
        "Building a Large Annotated Corpus of English: The Penn Treebank",
        "Computational Linguistics 1993",
        "https://aclanthology.org/J93-2004",
    ),
    "merity2017": Paper(
        "Merity, Xiong, Bradbury, Socher",
        "Pointer Sentinel Mixture Models",
        "ICLR 2017",
        "https://arxiv.org/abs/1609.07843",
    ),
    "weng2022": Paper(
        "Weng et al.",
        "MLaaS in the Wild: Workload Analysis and Scheduling in Large-Scale Heterogeneous GPU Clusters",
        "NSDI 2022",
        "https://www.usenix.org/conference/nsdi22/presentation/weng",
    ),
    "xiao2020": Paper(
        "Xiao et al.",
        "AntMan: Dynamic Scaling on GPU Clusters for Deep Learning",
        "OSDI 2020",
        "https://www.usenix.org/conference/osdi20/presentation/xiao",
    ),
    "klein2019": Paper(
        "Klein, Hutter",
        "Tabular Benchmarks for Joint Architecture and Hyperparameter Optimization",
        "2019",
        "https://arxiv.org/abs/1905.04970",
    ),
    "thorpe2023": Paper(
        "Thorpe et al.",
        "Bamboo: Making Preemptible Instances Resilient for Affordable Training of Large DNNs",
        "NSDI 2023",
    ),
}
"""References of data sets and measurements."""

DATASETS = {
    "fashion-mnist-small": "xiao2017",
    "fashion-mnist": "xiao2017",
    "mnist": "lecun1998",
    "cifar-10": "krizhevsky2009",
    "cifar-100": "krizhevsky2009",
    "penn-treebank": "marcus1993",
    "wikitext-2": "merity2017",
    "wikitext-103": "merity2017",
}


def cite_command(
    spec: Annotated[Path | None, typer.Argument(help="A TOML file; `stalegrad init` writes one.")] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Name of a method, e.g. ringmaster; may be repeated.")
    ] = None,
) -> None:
    """Print the references of what a spec uses as BibTeX: methods, data sets, measured delays and availability.

    Without a spec: the references of the methods that --method names.
    """
    from stalegrad import __version__
    from stalegrad.policies.methods import REGISTRY
    from stalegrad.simulator.sweeps.axes import load_sweep

    keys = dict.fromkeys(key for name in method or () for key in REGISTRY.find(name).papers)
    if spec is not None:
        keys |= dict.fromkeys(key for run in load_sweep(spec).runs for key in references(run.experiment))
    if not keys:
        raise ValueError("nothing to cite: give a spec, or --method NAME")
    title = "stalegrad: a discrete-event staleness simulator of distributed training"
    software = {
        "author": "{The stalegrad contributors}",
        "title": f"{{{title}}}",
        "version": __version__,
        "year": YEAR,
    }
    print(entry("software", "stalegrad", software))
    for key in keys:
        print()
        print(_bibtex(key))


def references(experiment: Experiment) -> Iterator[str]:
    """Give the keys of what an experiment uses; a method that a user has registered may give text instead."""
    from stalegrad.policies.methods import REGISTRY
    from stalegrad.simulator import Empirical
    from stalegrad.simulator.timing.availability import Events
    from stalegrad.simulator.timing.delays import as_table

    yield from REGISTRY[experiment.method.name].papers
    if experiment.problem.dataset in DATASETS:
        yield DATASETS[experiment.problem.dataset]
    trainings = as_table(Empirical.measured("nn-training-times"))
    for table in _tables(experiment.cluster.table()):
        if str(table.get("job", "")).startswith("alibaba-"):
            yield from ("weng2022", "xiao2020")
        if table == trainings:
            yield "klein2019"
    if experiment.cluster.availability in map(Events.measured, ("spot-p3", "spot-g4dn")):
        yield "thorpe2023"


def _tables(value: object) -> Iterator[Mapping[str, object]]:
    """Give a table and all tables within it."""
    if isinstance(value, Mapping):
        yield value
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _tables(each)


def _bibtex(key: str) -> str:
    """Return the entry of a key; text that is no key becomes a comment."""
    paper = REFERENCES.get(key) or DATA.get(key)
    return f"% {key}" if paper is None else paper.bibtex(key)
