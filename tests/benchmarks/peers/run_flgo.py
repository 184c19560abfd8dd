"""FLGo: FedAsync under its simulator, every client always busy, latencies exponential.

Its clock counts whole ticks, and messages that arrive in one tick form one update; ``MEAN`` is the mean latency in
ticks. Settings: ``defaults``, with evaluation and logging after every update; ``fastest``, without both;
``faithful``, as fastest, with latencies so long that nearly every message is a separate update. Mini-batches are
drawn with replacement from the rows that all clients share, so that FLGo needs no DataLoader.
"""

import contextlib
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from meter import Meter, TimeIsUp
from workloads import WORKLOADS

MEAN = {"defaults": 100, "fastest": 100, "faithful": 10_000}
QUIET = {"eval_interval": -1, "train_holdout": 0.0, "log_level": "ERROR", "no_log_console": True, "no_tqdm": True}

CONFIG = """
import sys
sys.path.insert(0, {here!r})
import torch
import torch.nn.functional as F
from torch_models import mean_loss, network
from workloads import WORKLOADS, data

INPUTS, LABELS = map(torch.from_numpy, data({workload!r}))


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return len(INPUTS)

    def __getitem__(self, row):
        return INPUTS[row], LABELS[row]


class DataLoader:
    def __init__(self, dataset, batch_size, **_):
        self.batch_size = batch_size

    def __iter__(self):
        rows = torch.randint(len(INPUTS), (self.batch_size,))
        yield INPUTS.index_select(0, rows), LABELS.index_select(0, rows)


def split_dataset(dataset, p):
    return dataset, None


def data_to_device(batch, device):
    return batch


def eval(model, loader, device):
    return {{"loss": mean_loss(model, INPUTS, LABELS)}}


def compute_loss(model, batch, device):
    return {{"loss": F.cross_entropy(model(batch[0]), batch[1])}}


def get_model():
    return network(WORKLOADS[{workload!r}].model)


train_data = [Rows()] * {workers}
test_data = Rows()
"""


def main() -> None:
    meter = Meter()
    a = meter.arguments
    workload = WORKLOADS[a.workload]

    import flgo
    import numpy as np
    import torch
    from flgo.algorithm import fedasync
    from flgo.simulator.base import BasicSimulator
    from torch_models import mean_loss
    from workloads import data

    class Exponential(BasicSimulator):
        def update_client_responsiveness(self, client_ids, *args, **kwargs):
            latencies = self.random_module.exponential(MEAN[a.setting], size=len(client_ids))
            self.set_variable(client_ids, "latency", [int(latency) for latency in latencies])

        def initialize(self, *args, **kwargs):
            self.random_module = np.random.RandomState(a.seed)

    class Server(fedasync.Server):
        def package_handler(self, received):
            updated = super().package_handler(received)
            if updated:
                meter.update(len(received["__cid"]))
            return updated

    class Algorithm:
        __name__ = "fedasync"

    Algorithm.Server, Algorithm.Client = Server, fedasync.Client
    options = {
        "num_rounds": a.gradients,
        "num_steps": 1,
        "batch_size": workload.batch_size,
        "learning_rate": workload.learning_rate,
        "proportion": 1.0,
        "sample": "uniform_available",
        "seed": a.seed,
        **({} if a.setting == "defaults" else QUIET),
    }
    home = Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the module of a task is named by its path relative to this folder
        sys.path.insert(0, folder)
        config = CONFIG.format(here=str(home), workload=a.workload, workers=a.workers)
        Path("given.py").write_text(config)
        meter.call()
        with contextlib.redirect_stdout(sys.stderr):
            task = flgo.gen_direct_task_from_file("task", "given.py")
            runner = flgo.init(task, Algorithm, options, Simulator=Exponential)
            runner.register_exit_condition(lambda server: meter.gradients >= a.gradients)
            with contextlib.suppress(TimeIsUp):
                runner.run()
        os.chdir(home)
    inputs, labels = map(torch.from_numpy, data(a.workload))
    parameters = [p.detach().numpy() for p in runner.model.parameters()]
    versions = {"flgo": version("flgo"), "torch": torch.__version__}
    meter.done(parameters, mean_loss(runner.model, inputs, labels), versions)


if __name__ == "__main__":
    main()
