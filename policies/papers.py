"""The papers that methods come from, by short names."""

from __future__ import annotations

from typing import NamedTuple


class Paper(NamedTuple):
    """A reference.

    Attributes:
        authors: family names, or the first one and ``et al.``; empty where they are not known.
        title: its title.
        venue: conference and year, or year.
        link: where it can be read; empty where no address is known.
        nickname: what readers call its method, where the title does not say it.
    """

    authors: str
    title: str
    venue: str
    link: str = ""
    nickname: str = ""

    @property
    def text(self) -> str:
        """The reference on one line."""
        title = f"{self.title} ({self.nickname})" if self.nickname else self.title
        return ", ".join(filter(None, (self.authors, title, self.venue)))

    def bibtex(self, key: str) -> str:
        """Return the reference as an entry of BibTeX."""
        names = self.authors.replace(" et al.", ", others").split(", ")
        fields = {
            "author": " and ".join(f"{{{name}}}" if " " in name else name for name in names),
            "title": f"{{{self.title}}}",
            "howpublished": self.venue[:-4].strip() if self.venue[-4:].isdigit() else self.venue,
            "year": next(word for word in self.venue.split() if word.isdigit()),
            "url": self.link,
        }
        return entry("misc", key, fields)


def entry(kind: str, key: str, fields: dict[str, str]) -> str:
    """Return an entry of BibTeX; fields that are empty are left out."""
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


REFERENCES = {
    "dutta2018": Paper(
        "Dutta et al.",
        "Slow and Stale Gradients Can Win the Race",
        "AISTATS 2018",
        link="https://arxiv.org/abs/1803.01113",
    ),
    "dutta2020": Paper(
        "Dutta et al.",
        "Slow and Stale Gradients Can Win the Race",
        "2020",
        link="https://arxiv.org/abs/2003.10579",
        nickname="AdaSync",
    ),
    "mindthestep2019": Paper(
        "Backstrom, Papatriantafilou, Tsigas",
        "MindTheStep-AsyncPSGD",
        "IEEE BigData 2019",
        link="https://arxiv.org/abs/1911.03444",
    ),
    "asap2022": Paper(
        "Backstrom, Papatriantafilou, Tsigas",
        "ASAP.SGD",
        "ICML 2022",
        link="https://proceedings.mlr.press/v162/backstrom22a.html",
    ),
    "fleet2020": Paper(
        "Damaskinos et al.",
        "FLeet: Online Federated Learning via Staleness Awareness",
        "Middleware 2020",
        link="https://arxiv.org/abs/2006.07273",
    ),
    "mishchenko2022": Paper(
        "Mishchenko et al.",
        "Asynchronous SGD Beats Minibatch SGD",
        "NeurIPS 2022",
        link="https://arxiv.org/abs/2206.07638",
    ),
    "dana2019": Paper(
        "Hakimi et al.",
        "Taming Momentum in a Distributed Asynchronous Environment",
        "2019",
        link="https://arxiv.org/abs/1907.11612",
        nickname="DANA",
    ),
    "dcasgd2017": Paper(
        "Zheng et al.",
        "Asynchronous SGD with Delay Compensation",
        "ICML 2017",
        link="https://arxiv.org/abs/1609.08326",
    ),
    "lwp2020": Paper(
        "Kosson et al.", "Pipelined Backpropagation at Scale", "2020", link="https://arxiv.org/abs/2003.11666"
    ),
    "gapaware2020": Paper(
        "Barkai, Hakimi, Schuster",
        "Gap-Aware Mitigation of Gradient Staleness",
        "ICLR 2020",
        link="https://arxiv.org/abs/1909.10802",
    ),
    "zhang2016": Paper(
        "Zhang et al.",
        "Staleness-aware Async-SGD for Distributed Deep Learning",
        "IJCAI 2016",
        link="https://arxiv.org/abs/1511.05950",
    ),
    "smega2022": Paper(
        "Cohen, Hakimi, Schuster", "SMEGA2", "ICPP 2022", link="https://doi.org/10.1145/3545008.3545010"
    ),
    "fasgd2016": Paper("Odena", "Faster Asynchronous SGD", "2016", link="https://arxiv.org/abs/1601.04033"),
    "spectrain2018": Paper(
        "Chen, Yang, Cheng",
        "Efficient and Robust Parallel DNN Training",
        "2018",
        link="https://arxiv.org/abs/1809.02839",
        nickname="SpecTrain",
    ),
    "easgd2015": Paper(
        "Zhang, Choromanska, LeCun",
        "Deep Learning with Elastic Averaging SGD",
        "NIPS 2015",
        link="https://arxiv.org/abs/1412.6651",
    ),
    "downpour2012": Paper("Dean et al.", "Large Scale Distributed Deep Networks", "NIPS 2012"),
    "talyansky2018": Paper("Talyansky et al.", "Asynchronous SGD without gradient delay", "ICLR 2019 submission"),
    "chen2016": Paper(
        "Chen et al.",
        "Revisiting Distributed Synchronous SGD",
        "ICLR Workshop 2016",
        link="https://arxiv.org/abs/1604.00981",
    ),
    "li2014": Paper(
        "Li et al.",
        "Scaling Distributed Machine Learning with the Parameter Server",
        "OSDI 2014",
        link="https://www.usenix.org/conference/osdi14/technical-sessions/presentation/li_mu",
    ),
    "stich2019": Paper(
        "Stich",
        "Local SGD Converges Fast and Communicates Little",
        "ICLR 2019",
        link="https://arxiv.org/abs/1805.09767",
    ),
    "msync2026": Paper(
        "",
        "Do We Need Asynchronous SGD? On the Near-Optimality of Synchronous Methods",
        "2026",
        link="https://arxiv.org/abs/2602.03802",
    ),
    "tyurin2023": Paper(
        "Tyurin, Richtarik",
        "Optimal Time Complexities of Parallel Stochastic Optimization Methods Under a Fixed Computation Model",
        "NeurIPS 2023",
        link="https://arxiv.org/abs/2305.12387",
        nickname="Rennala, Malenia",
    ),
    "ringmaster2025": Paper(
        "Maranjyan, Tyurin, Richtarik",
        "Ringmaster ASGD: The First Asynchronous SGD with Optimal Time Complexity",
        "ICML 2025",
        link="https://arxiv.org/abs/2501.16168",
    ),
    "ringleader2026": Paper(
        "Maranjyan, Richtarik", "Ringleader ASGD", "ICLR 2026", link="https://arxiv.org/abs/2509.22860"
    ),
    "ringmasterlmo2026": Paper(
        "Sadiev et al.",
        "Ringmaster LMO: Asynchronous Linear Minimization Oracle Momentum Method",
        "2026",
        link="https://arxiv.org/abs/2605.18174",
    ),
    "dude2024": Paper(
        "Wang et al.",
        "Dual-Delayed Asynchronous SGD for Arbitrarily Heterogeneous Data",
        "2024",
        link="https://arxiv.org/abs/2405.16966",
        nickname="DuDe",
    ),
    "ca2fl2024": Paper(
        "Wang et al.",
        "Tackling the Data Heterogeneity in Asynchronous Federated Learning with Cached Update Calibration",
        "ICLR 2024",
        link="https://openreview.net/forum?id=4aywmeb97I",
        nickname="CA2FL",
    ),
    "fadas2024": Paper(
        "Wang et al.",
        "FADAS: Towards Federated Adaptive Asynchronous Optimization",
        "ICML 2024",
        link="https://arxiv.org/abs/2407.18365",
    ),
    "fedbuff2022": Paper(
        "Nguyen et al.",
        "Federated Learning with Buffered Asynchronous Aggregation",
        "AISTATS 2022",
        link="https://arxiv.org/abs/2106.06639",
        nickname="FedBuff",
    ),
    "fedasync2019": Paper(
        "Xie, Koyejo, Gupta",
        "Asynchronous Federated Optimization",
        "2019",
        link="https://arxiv.org/abs/1903.03934",
        nickname="FedAsync",
    ),
    "clipped2026": Paper(
        "Erickson, Johansson",
        "Clipping Makes Distributed and Federated Asynchronous SGD Robust to Stragglers",
        "ICML 2026",
        link="https://arxiv.org/abs/2606.13287",
    ),
    "mindflayer2025": Paper(
        "Maranjyan, Shaikh Omar, Richtarik",
        "MindFlayer SGD: Efficient Parallel SGD in the Presence of Heterogeneous and Random Worker Compute Times",
        "UAI 2025",
        link="https://arxiv.org/abs/2410.04285",
    ),
    "dropcompute2023": Paper(
        "Giladi et al.",
        "DropCompute: Simple and More Robust Distributed Synchronous Training via Compute Variance Reduction",
        "NeurIPS 2023",
        link="https://arxiv.org/abs/2306.10598",
    ),
    "adacomm2019": Paper(
        "Wang, Joshi",
        "Adaptive Communication Strategies to Achieve the Best Error-Runtime Trade-off in Local-Update SGD",
        "MLSys 2019",
        link="https://arxiv.org/abs/1810.08313",
        nickname="AdaComm",
    ),
    "diloco2023": Paper(
        "Douillard et al.",
        "DiLoCo: Distributed Low-Communication Training of Language Models",
        "2023",
        link="https://arxiv.org/abs/2311.08105",
    ),
    "asynclocalsgd2024": Paper(
        "Liu et al.",
        "Asynchronous Local-SGD Training for Language Modeling",
        "2024",
        link="https://arxiv.org/abs/2401.09135",
    ),
    "langford2009": Paper(
        "Langford, Smola, Zinkevich", "Slow Learners are Fast", "NIPS 2009", link="https://arxiv.org/abs/0911.0491"
    ),
    "pipedream2019": Paper(
        "Narayanan et al.",
        "PipeDream: Generalized Pipeline Parallelism for DNN Training",
        "SOSP 2019",
        link="https://doi.org/10.1145/3341301.3359646",
    ),
    "ssp2013": Paper(
        "Ho et al.", "More Effective Distributed ML via a Stale Synchronous Parallel Server", "NIPS 2013"
    ),
}
"""The references by short names, as methods give them."""

PAPERS = {key: paper.text for key, paper in REFERENCES.items()}
"""The references as text."""

LINKS = {key: paper.link for key, paper in REFERENCES.items() if paper.link}
"""Where papers can be read."""
