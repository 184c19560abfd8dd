"""The papers that methods come from, by short names."""

PAPERS = {
    "dutta2018": "Dutta et al., Slow and Stale Gradients Can Win the Race, AISTATS 2018",
    "dutta2020": "Dutta et al., Slow and Stale Gradients Can Win the Race (AdaSync), 2020",
    "mindthestep2019": "Backstrom, Papatriantafilou, Tsigas, MindTheStep-AsyncPSGD, IEEE BigData 2019",
    "asap2022": "Backstrom, Papatriantafilou, Tsigas, ASAP.SGD, ICML 2022",
    "fleet2020": "Damaskinos et al., FLeet: Online Federated Learning via Staleness Awareness, Middleware 2020",
    "mishchenko2022": "Mishchenko et al., Asynchronous SGD Beats Minibatch SGD, NeurIPS 2022",
    "dana2019": "Hakimi et al., Taming Momentum in a Distributed Asynchronous Environment (DANA), 2019",
    "dcasgd2017": "Zheng et al., Asynchronous SGD with Delay Compensation, ICML 2017",
    "lwp2020": "Kosson et al., Pipelined Backpropagation at Scale, 2020",
    "gapaware2020": "Barkai, Hakimi, Schuster, Gap-Aware Mitigation of Gradient Staleness, ICLR 2020",
    "zhang2016": "Zhang et al., Staleness-aware Async-SGD for Distributed Deep Learning, IJCAI 2016",
    "smega2022": "Cohen, Hakimi, Schuster, SMEGA2, ICPP 2022",
    "fasgd2016": "Odena, Faster Asynchronous SGD, 2016",
    "spectrain2018": "Chen, Yang, Cheng, Efficient and Robust Parallel DNN Training (SpecTrain), 2018",
    "easgd2015": "Zhang, Choromanska, LeCun, Deep Learning with Elastic Averaging SGD, NIPS 2015",
    "downpour2012": "Dean et al., Large Scale Distributed Deep Networks, NIPS 2012",
    "talyansky2018": "Talyansky et al., Asynchronous SGD without gradient delay, ICLR 2019 submission",
    "ssp2013": "Ho et al., More Effective Distributed ML via a Stale Synchronous Parallel Server, NIPS 2013",
}

LINKS = {
    "dutta2018": "https://arxiv.org/abs/1803.01113",
    "dutta2020": "https://arxiv.org/abs/2003.10579",
    "mindthestep2019": "https://arxiv.org/abs/1911.03444",
    "asap2022": "https://proceedings.mlr.press/v162/backstrom22a.html",
    "fleet2020": "https://arxiv.org/abs/2006.07273",
    "mishchenko2022": "https://arxiv.org/abs/2206.07638",
    "dana2019": "https://arxiv.org/abs/1907.11612",
    "dcasgd2017": "https://arxiv.org/abs/1609.08326",
    "lwp2020": "https://arxiv.org/abs/2003.11666",
    "gapaware2020": "https://arxiv.org/abs/1909.10802",
    "zhang2016": "https://arxiv.org/abs/1511.05950",
    "smega2022": "https://doi.org/10.1145/3545008.3545010",
    "fasgd2016": "https://arxiv.org/abs/1601.04033",
    "spectrain2018": "https://arxiv.org/abs/1809.02839",
    "easgd2015": "https://arxiv.org/abs/1412.6651",
}
"""Where papers can be read, by the same names."""
