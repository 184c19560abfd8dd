"""The report as a browser sees it: whole, self-contained, escaped, and with the numbers of the results."""

import base64
import dataclasses
import struct
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stalegrad.analysis import Report, comparison, report
from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Experiment, Exponential, Record, Result, run

VOID = {"meta", "img", "br"}
EVIL = "</pre></title></style><script>alert('&')</script>"


class Page(HTMLParser):
    """What is on a page: tags with attributes, the text below each kind of tag, and whether tags nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]][-1] += data

    @property
    def kinds(self) -> set[str]:
        return {tag for tag, _ in self.tags}

    def pictures(self) -> list[bytes]:
        sources = [attrs["src"] or "" for tag, attrs in self.tags if tag == "img"]
        assert all(source.startswith("data:image/png;base64,") for source in sources)
        return [base64.b64decode(source.split(",")[1], validate=True) for source in sources]


def assert_self_contained(html: str) -> None:
    page = Page(html)
    assert not page.kinds & {"script", "link", "iframe", "object", "embed", "base", "form", "a"}
    for _, attrs in page.tags:
        assert not {name for name in attrs if name.startswith("on")} | attrs.keys() & {"href", "srcset", "action"}
    (style,) = page.texts["style"]
    assert "url(" not in style
    assert "@import" not in style
    assert "://" not in style
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    for picture in page.pictures():
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        assert min(struct.unpack(">II", picture[16:24])) > 300


BASE = Experiment(
    problem=Problem("softmax-regression", "fashion-mnist-small", batch_size=16),
    cluster=Cluster(workers=3, compute=Exponential(1.0)),
    method=methods.sync(learning_rate=0.05),
    updates=12,
    seed=4,
    record=Record(updates=3),
)


def reseeded(result: Result, seed: int) -> Result:
    """Return a result as if of another seed, a little worse, without another compilation."""
    history = result.history.assign(test_error=result.history["test_error"] * 1.03)
    return dataclasses.replace(result, experiment=result.experiment.but(seed=seed), history=history)


@pytest.fixture(scope="module")
def results() -> list[Result]:
    one, two = (methods.k_async(k=k, learning_rate=0.05) for k in (1, 2))
    found = [run(BASE, progress=False), run(BASE.but(method=one), progress=False)]
    found += [dataclasses.replace(found[1], experiment=BASE.but(method=two))]
    return [each for result in found for each in (result, reseeded(result, 2))]


@pytest.fixture(scope="module")
def one(results: list[Result]) -> Report:
    return results[0].report()


@pytest.fixture(scope="module")
def several(results: list[Result]) -> Report:
    return report(results)


@pytest.fixture
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save the time of rendering where only the text is looked at."""
    monkeypatch.setattr("stalegrad.analysis.reports.report.picture", lambda ax, caption: "")
    monkeypatch.setattr("stalegrad.analysis.reports.anatomy.picture", lambda ax, caption: "")


def renamed(result: Result, name: str, spec: str) -> Any:
    """Return the result of a method and a spec that somebody else wrote."""
    experiment = SimpleNamespace(
        method=SimpleNamespace(name=name), seed=0, to_toml=lambda: spec, table=lambda: {"method": {"name": name}}
    )
    return SimpleNamespace(
        experiment=experiment, trace=result.trace, history=result.history, diverged_at=None,
        versions={name: "<b>1</b>"},
    )  # fmt: skip


def test_one_result_is_a_self_contained_page(results: list[Result], one: Report) -> None:
    html = one.html
    assert_self_contained(html)
    page = Page(html)
    assert page.texts["h1"] == page.texts["title"] == ["sync, seed 4"]
    assert results[0].experiment.to_toml() in page.texts["pre"]
    assert "stalegrad run spec-1.toml -o runs/1-4 --seed 4" in page.texts["pre"]
    assert len(page.pictures()) == 6


def test_several_are_compared_by_method_and_by_what_differs(several: Report) -> None:
    html = several.html
    assert_self_contained(html)
    page = Page(html)
    assert page.texts["h1"] == ["3 methods compared"]
    labels = ["k-async (k = 1)", "k-async (k = 2)", "sync"]
    assert [text for text in page.texts["th"] if text in labels][:3] == labels
    assert [text for text in page.texts["h3"] if text.startswith("spec-")] == [
        f"spec-{place}.toml: {label}, seeds 2, 4" for place, label in enumerate(labels, start=1)
    ]
    assert "Against sync" in page.texts["h2"]


@pytest.mark.usefixtures("_undrawn")
def test_the_table_of_workers_says_what_their_staleness_consists_of(results: list[Result]) -> None:
    html = report(results[2:3]).html  # asynchronous, without links: all of it is computing
    staleness = results[2].trace.staleness
    assert "<th>before reading</th><th>computing</th><th>travelling</th><th>waiting</th>" in html
    mean = f"{staleness.mean():.2f}"
    cells = f"<td>{mean}</td><td>0.00</td><td>{mean}</td><td>0.00</td><td>0.00</td><td>{len(staleness)}</td>"
    assert f"<tr><th>all</th>{cells}<td>100.0%</td>" in html


@pytest.mark.usefixtures("_undrawn")
def test_the_table_holds_the_medians(results: list[Result]) -> None:
    cells = Page(report(results[:2], target=0.4).html).texts["td"]
    pairs = {"sync": [(r.trace, r.history) for r in results[:2]]}
    row = comparison(pairs, 0.4).loc["sync"]
    assert cells[:2] == ["2", f"{row['reached']:.0f}"]
    assert float(cells[2]) == pytest.approx(row["wallclock"], rel=1e-3)
    assert cells[3:5] == ["12", "0.00"]
    assert cells[5:7] == [f"{row['idle']:.1%}", f"{row['wasted']:.1%}"]
    assert float(cells[7]) == pytest.approx(row["test_error"], rel=1e-3)


def test_the_target_is_one_that_more_than_half_of_the_seeds_of_every_method_reach(
    results: list[Result], several: Report
) -> None:
    (said,) = [text for text in Page(several.html).texts["p"] if text.startswith("The target")]
    best = [max(r.history["test_error"].min() for r in results[place : place + 2]) for place in (0, 2, 4)]
    assert f"a test error of {max(best):.4g}, the lowest that more than half" in said


def test_text_of_others_is_escaped_and_shown_as_it_is(results: list[Result]) -> None:
    html = report([renamed(results[0], EVIL, f"name = '{EVIL}'"), results[2]]).html
    assert_self_contained(html)
    assert EVIL not in html
    page = Page(html)
    assert f"name = '{EVIL}'" in page.texts["pre"]
    assert {EVIL, "<b>1</b>"} <= {*page.texts["th"], *page.texts["td"]}


def test_the_same_results_give_the_same_bytes_in_any_order(results: list[Result], tmp_path: Path) -> None:
    two = results[1:3]
    once = report(two).html
    loaded = [Result.load(result.save(tmp_path / str(place))) for place, result in enumerate(two)]
    assert report(loaded[::-1]).html == once


@pytest.mark.usefixtures("_undrawn")
def test_versions_are_those_of_the_runs(results: list[Result]) -> None:
    old = dataclasses.replace(results[0], versions={"numpy": "0.1"})
    assert (
        "0.1, 0.2"
        in Page(report([old, dataclasses.replace(results[1], versions={"numpy": "0.2"})]).html).texts["td"]
    )
    page = Page(report([dataclasses.replace(results[0], versions={})]).html)
    assert "Not recorded." in page.texts["p"]


@pytest.mark.usefixtures("_undrawn")
def test_a_run_that_diverged_or_never_updated_is_reported(results: list[Result]) -> None:
    history = results[0].history.assign(train_loss=np.nan, test_loss=np.nan)
    lost = dataclasses.replace(results[0], history=history, diverged_at=3.5)
    assert "Diverged: sync, seed 4, at 3.5 s." in Page(lost.report().html).texts["p"]
    idle = run(BASE.but(updates=None, wallclock=1e-6), progress=False)
    assert_self_contained(idle.report().html)


@pytest.mark.usefixtures("_undrawn")
@pytest.mark.parametrize("target", [None, 0.5])
def test_runs_whose_loss_was_never_finite_are_reported(results: list[Result], target: float | None) -> None:
    history = results[0].history.assign(train_loss=np.nan, test_loss=np.inf, test_error=np.nan)
    lost = dataclasses.replace(results[0], history=history, diverged_at=0.0)
    other = dataclasses.replace(results[2], history=history, diverged_at=0.0)
    for several in ([lost], [lost, other], [lost, reseeded(lost, 9)]):
        page = Page(report(several, target).html)
        assert "No run ever had a finite training loss." in page.texts["p"]
        assert any(text.startswith("Diverged: ") for text in page.texts["p"])
        assert "12" in page.texts["td"]
    page = Page(report([lost, results[2]], target).html)  # one of two methods
    assert any(text.startswith("The target is a test error of") for text in page.texts["p"])


@pytest.mark.usefixtures("_undrawn")
def test_a_run_of_one_row_is_reported(results: list[Result]) -> None:
    one_row = dataclasses.replace(results[0], history=results[0].history[:1])
    assert_self_contained(report([one_row]).html)
    assert_self_contained(report([one_row, results[2]]).html)


IMG = "<img src=x onerror=alert(1)>"
NAMES = [IMG, r"$\q$", "$x^", "two\nlines", "\u202egnp.exe", "a\x00b\x1b[31m", "\ud800", "_", ""]


def test_names_of_any_kind_are_reported_and_drawn(results: list[Result], tmp_path: Path) -> None:
    runs = [renamed(results[0], name, f"name = {name!r}") for name in NAMES]
    for run_ in runs:
        run_.diverged_at = 1.0
    html = report(runs).html
    assert_self_contained(html)
    assert Report(html).save(tmp_path / "report.html").read_text(encoding="utf-8") == html
    page = Page(html)
    assert not any(a.get("src") == "x" for _, a in page.tags)
    shown = {*page.texts["th"], *page.texts["h3"]}
    assert {IMG, r"$\q$", "two lines", "\ufffdgnp.exe", "a\ufffdb\ufffd[31m", "\ufffd"} <= shown


@pytest.mark.usefixtures("_undrawn")
def test_an_experiment_of_this_process_only_says_that_there_is_no_spec() -> None:
    problem = Problem.from_functions(
        lambda key: np.zeros(2), lambda w, batch, key: ((w - batch["x"]) ** 2).mean(),
        train={"x": np.ones((8, 2))}, batch_size=2,
    )  # fmt: skip
    page = Page(run(BASE.but(problem=problem), progress=False).report().html)
    assert any("cannot be written to a spec" in text for text in page.texts["pre"])
    assert any(text.startswith("The target is a training loss of") for text in page.texts["p"])


@pytest.mark.usefixtures("_undrawn")
def test_settings_too_long_for_a_label_are_cut_and_stay_apart(results: list[Result]) -> None:
    def faster(last: float) -> Result:
        cluster = Cluster(workers=3, compute=Exponential(1.0), speeds=[1.00000001, 1.00000002, last])
        return dataclasses.replace(results[0], experiment=BASE.but(cluster=cluster))

    page = Page(report([faster(3.0), faster(2.0)]).html)
    labels = [text for text in page.texts["th"] if text.startswith("sync")]
    assert labels[:2] == [f"sync (cluster.speeds = [1.00000001, 1.00000002,){again}" for again in ("", " #2")]


def test_a_notebook_shows_the_page_in_a_frame_of_its_own(one: Report) -> None:
    frame = Page(one._repr_html_())
    assert frame.tags == [("iframe", {"srcdoc": one.html, "style": "width: 100%; height: 40rem; border: 0"})]


def test_saving_overwrites_only_if_told(one: Report, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "report.html"
    assert one.save(file).read_text(encoding="utf-8") == one.html
    file.write_text("mine")
    with pytest.raises(FileExistsError, match="exists already: choose another name"):
        one.save(file)
    assert file.read_text() == "mine"
    one.save(file, overwrite=True)
    assert file.read_text(encoding="utf-8") == one.html


def test_what_cannot_be_reported_is_named(results: list[Result]) -> None:
    with pytest.raises(ValueError, match=r"results is \[\]: give a list of at least one result"):
        report([])
    with pytest.raises(ValueError, match="two results are of the same experiment, sync, seed 4"):
        report([results[0], results[0]])
    empty = dataclasses.replace(results[0], history=results[0].history[:0])
    with pytest.raises(ValueError, match="history 0 has no rows"):
        report([empty])
    with pytest.raises(ValueError, match="target is inf: give a finite number"):
        report(results, target=np.inf)
