"""APPFL's virtual-time simulator ``appfl.vsim``, asynchronous, every client always busy, times exponential.

Settings: ``defaults``; ``fastest``, with ``optimize_memory`` off in all five configurations (if it is on, garbage
    is collected several times per training), logging off and PyTorch on one thread. A client holds 100 of the
    rows, because its loader shuffles all its rows before each mini-batch. Aggregation is FedAsync of gradients,
    with weights that make it plain asynchronous SGD.
"""

import contextlib
import logging
import os
import random
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from meter import Meter, TimeIsUp
from workloads import WORKLOADS, data

HOME = Path(__file__).resolve().parent
SHARD = 100


def main() -> None:
    meter = Meter()
    a = meter.arguments
    workload = WORKLOADS[a.workload]

    import torch
    from appfl.agent import ServerAgent
    from appfl.agent.sim_client import SimClientAgent
    from appfl.config import ServerAgentConfig
    from appfl.vsim import AsyncSimDriver, ClientProfile, VsimLogger
    from omegaconf import OmegaConf
    from torch_models import mean_loss

    memory = {} if a.setting == "defaults" else {"optimize_memory": False}
    if a.setting != "defaults":
        logging.disable(logging.CRITICAL)
        torch.set_num_threads(1)
    torch.manual_seed(a.seed)
    inputs, labels = map(torch.from_numpy, data(a.workload))
    times = random.Random(a.seed)

    class Rows(torch.utils.data.Dataset):
        def __init__(self, worker):
            start = worker * SHARD % len(inputs)
            self.inputs, self.labels = inputs[start : start + SHARD], labels[start : start + SHARD]

        def __len__(self):
            return SHARD

        def __getitem__(self, row):
            return self.inputs[row], self.labels[row]

    class Exponential(ClientProfile):
        def compute_time(self, *_, **__):
            return times.expovariate(1.0)

    class Driver(AsyncSimDriver):
        def _handle_train_complete(self, *arguments):
            super()._handle_train_complete(*arguments)
            meter.update()

    train = {
        "trainer": "VanillaTrainer",
        "mode": "step",
        "num_local_steps": 1,
        "train_batch_size": workload.batch_size,
        "optim": "SGD",
        "optim_args": {"lr": workload.learning_rate},
        "loss_fn": "CrossEntropyLoss",
        "metric_path": str(HOME / "appfl_metric.py"),
        "metric_name": "accuracy",
        "send_gradient": True,
        "device": "cpu",
        "logging_output_filename": "",
        **memory,
    }
    model = {
        "model_path": str(HOME / "torch_models.py"),
        "model_name": "network",
        "model_kwargs": {"model": workload.model},
    }
    server = {
        "num_clients": a.workers,
        "num_global_epochs": a.gradients,
        "scheduler": "AsyncScheduler",
        "scheduler_kwargs": {"num_clients": a.workers, **memory},
        "aggregator": "FedAsyncAggregator",
        "aggregator_kwargs": {
            "num_clients": a.workers,
            "alpha": float(a.workers),
            **memory,
        },
        "device": "cpu",
        **memory,
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        os.chdir(folder)
        meter.call()
        configs = OmegaConf.create(
            {"client_configs": {"train_configs": train, "model_configs": model}, "server_configs": server}
        )
        agent = ServerAgent(ServerAgentConfig(configs.client_configs, configs.server_configs))
        client = {"train_configs": train, "model_configs": model, **memory}
        clients = [SimClientAgent(client, f"{worker}", Rows(worker)) for worker in range(a.workers)]
        profiles = {f"{worker}": Exponential(bandwidth=0) for worker in range(a.workers)}
        driver = Driver(agent, clients, profiles, a.workers, VsimLogger(), seed=a.seed, base_step_time=1.0)
        with contextlib.suppress(TimeIsUp):
            driver.run()
        os.chdir(HOME)
    if meter.gradients >= a.gradients:
        assert all(driver.verify(a.gradients).values())
    parameters = [p.detach().numpy() for p in agent.model.parameters()]
    versions = {"appfl": version("appfl"), "torch": torch.__version__}
    meter.done(parameters, mean_loss(agent.model, inputs, labels), versions)


if __name__ == "__main__":
    main()
