"""A bare loop: a heap of finish times and PyTorch on one thread, without records and checks.

Setting ``autograd``: the gradient by ``torch.autograd.grad``, without modules or an optimizer object. An update
makes new parameters, so that a worker holds a reference and nothing is copied. Setting ``by-hand`` (W1 and MLP):
the gradient written out and fused with the update, without autograd, as fast as possible in PyTorch. Delays and
mini-batches are drawn in blocks beforehand.
"""

import heapq
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from meter import Meter, TimeIsUp
from torch import Tensor
from torch_models import mean_loss, network
from workloads import CLASSES, WORKLOADS, data

BLOCK = 10_000
Parameters = list[Tensor]
Step = Callable[[Parameters, Parameters, Tensor], Parameters]
"""``step(now, read, rows)`` applies the gradient at parameters ``read`` to ``now`` and returns new parameters."""


def softmax_logits(p: Parameters, x: Tensor) -> Tensor:
    return F.linear(x, p[0], p[1])


def mlp_logits(p: Parameters, x: Tensor) -> Tensor:
    return F.linear(F.linear(x, p[0], p[1]).relu_(), p[2], p[3])


def cnn_logits(p: Parameters, x: Tensor) -> Tensor:
    x = F.max_pool2d(F.conv2d(x.view(-1, 1, 28, 28), p[0], p[1]), 2).relu_()
    x = F.max_pool2d(F.conv2d(x, p[2], p[3]), 2).relu_()
    return F.linear(F.linear(x.flatten(1), p[4], p[5]).relu_(), p[6], p[7])


LOGITS = {"softmax": softmax_logits, "mlp": mlp_logits, "cnn": cnn_logits}


def autograd_step(model: str, rate: float, inputs: Tensor, labels: Tensor) -> Step:
    logits = LOGITS[model]

    def step(now: Parameters, read: Parameters, rows: Tensor) -> Parameters:
        output = logits(read, inputs.index_select(0, rows))
        gradients = torch.autograd.grad(F.cross_entropy(output, labels.index_select(0, rows)), read)
        with torch.no_grad():
            return [torch.sub(p, g, alpha=rate).requires_grad_() for p, g in zip(now, gradients, strict=True)]

    return step


def softmax_step(rate: float, batch: int, inputs: Tensor, targets: Tensor) -> Step:
    def step(now: Parameters, read: Parameters, rows: Tensor) -> Parameters:
        x = inputs.index_select(0, rows)
        error = torch.addmm(read[1], x, read[0].t()).softmax(1).sub_(targets.index_select(0, rows))
        return [
            torch.addmm(now[0], error.t(), x, alpha=-rate / batch),
            torch.sub(now[1], error.sum(0), alpha=rate / batch),
        ]

    return step


def mlp_step(rate: float, batch: int, inputs: Tensor, targets: Tensor) -> Step:
    def step(now: Parameters, read: Parameters, rows: Tensor) -> Parameters:
        x = inputs.index_select(0, rows)
        hidden = torch.addmm(read[1], x, read[0].t()).relu_()
        error = torch.addmm(read[3], hidden, read[2].t()).softmax(1).sub_(targets.index_select(0, rows))
        back = torch.mm(error, read[2]).mul_(hidden > 0)
        return [
            torch.addmm(now[0], back.t(), x, alpha=-rate / batch),
            torch.sub(now[1], back.sum(0), alpha=rate / batch),
            torch.addmm(now[2], error.t(), hidden, alpha=-rate / batch),
            torch.sub(now[3], error.sum(0), alpha=rate / batch),
        ]

    return step


def main() -> None:
    meter = Meter()
    a = meter.arguments
    workload = WORKLOADS[a.workload]
    torch.set_num_threads(1)
    torch.manual_seed(a.seed)
    inputs, labels = map(torch.from_numpy, data(a.workload))
    model = network(workload.model)
    now = [p.detach().clone() for p in model.parameters()]
    if a.setting == "by-hand":
        write = {"softmax": softmax_step, "mlp": mlp_step}[workload.model]
        targets = F.one_hot(labels, CLASSES).float()
        step = write(workload.learning_rate, workload.batch_size, inputs, targets)
    else:
        now = [p.requires_grad_() for p in now]
        step = autograd_step(workload.model, workload.learning_rate, inputs, labels)

    meter.call()
    rng = np.random.default_rng(a.seed)
    heap = [(float(delay), worker) for worker, delay in enumerate(rng.exponential(size=a.workers))]
    heapq.heapify(heap)
    held = [now] * a.workers
    try:
        with torch.inference_mode(a.setting == "by-hand"):
            for start in range(0, a.gradients, BLOCK):
                count = min(BLOCK, a.gradients - start)
                delays = rng.exponential(size=count).tolist()
                rows = torch.from_numpy(rng.integers(0, len(inputs), (count, workload.batch_size))).unbind()
                for delay, batch in zip(delays, rows, strict=True):
                    time, worker = heap[0]
                    now = step(now, held[worker], batch)
                    held[worker] = now
                    heapq.heapreplace(heap, (time + delay, worker))
                    meter.update()
    except TimeIsUp:
        pass
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), now, strict=True):
            parameter.copy_(value)
    parameters = [p.detach().numpy() for p in model.parameters()]
    meter.done(parameters, mean_loss(model, inputs, labels), {"torch": torch.__version__})


if __name__ == "__main__":
    main()
