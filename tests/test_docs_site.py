"""The documentation site: every public name, method, key and command is there, and every example runs."""

import dataclasses
import html.parser
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import typer

import stalegrad
from stalegrad.policies.methods import REGISTRY
from stalegrad.simulator.cli import app

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
ROOMS = ("simulator", "policies", "models", "analysis")


@pytest.fixture(scope="module")
def pages():
    """The package of ``scripts`` that writes pages, without its pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        yield importlib.import_module("pages")


@pytest.fixture(scope="module")
def names(pages):
    return pages.names.pages(DOCS)


@pytest.fixture(scope="module")
def methods(pages):
    return pages.methods.pages(DOCS)


@pytest.fixture(scope="module")
def specs(pages):
    return pages.specs.text()


def offered(room):
    module = importlib.import_module(f"stalegrad.{room}")
    return [(f"stalegrad.{room}.{name}", getattr(module, name)) for name in module.__all__]


# The reference


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_of_a_room_has_a_page_and_is_listed(room, names):
    listed = names[f"api/stalegrad.{room}.md"]
    for name, _ in offered(room):
        assert re.search(rf"^\.\. (auto\w+|py:data|py:module):: {name}$", names[f"api/{name}.rst"], re.M), name
        assert f"]({name}.rst) | " in listed
        assert not re.search(rf"\]\({name}\.rst\) \|\s*\|", listed), f"{name} has no docstring"
        assert re.search(rf"^{name}$", listed, re.M), f"{name} is not in the table of contents"


def test_every_name_of_the_curated_namespace_has_an_anchor(names):
    anchors = set(re.findall(r"^\.\. py:\w+:: (stalegrad\.\w+)$", "\n".join(names.values()), re.M))
    assert anchors == {f"stalegrad.{name}" for name in stalegrad.__all__} - {"stalegrad.__version__"}


def test_methods_that_a_base_without_a_page_gives_are_shown(names):
    problem, result = names["api/stalegrad.models.Problem.rst"], names["api/stalegrad.simulator.SweepResult.rst"]
    assert re.search(r":members: .*\bfrom_functions\b.*\bshards\b", problem)
    assert re.search(r":members: .*\bto_target\b", result)


@pytest.mark.parametrize("name", REGISTRY)
def test_every_method_has_a_page_whose_example_trains(name, methods):
    text, info = methods[f"methods/{name}.md"], REGISTRY[name]
    for heading in ("What the server does", "Who waits for whom", "Parameters", "Example", "Reference"):
        assert f"\n## {heading}\n\n" in text
    for key in (*info.parameters, "synchrony"):
        assert f"\n| `{key}` | " in text
    assert f"synchrony-{info.synchrony_name}.png" in text
    for paper in info.paper.split("; "):
        assert paper.replace("_", "\\_") in text
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    (spec,) = re.findall(r"```toml\n(.*?)```", text, re.S)
    made = tomllib.loads(spec)["method"]
    assert made.pop("name") == name
    done, printed = {}, StringIO()
    with redirect_stdout(printed):
        exec(code, done)
    assert info(**made) == done["method"]
    loss = done["result"].history["train_loss"]
    assert 0 <= loss.iloc[-1] < loss.iloc[0]
    assert len(printed.getvalue().splitlines()) == 6


def test_every_method_is_in_the_table(methods):
    table = methods["methods/index.md"]
    assert all(f"[{name}]({name}.md)" in table for name in REGISTRY)
    assert all(f"`{alias}`" in table for info in REGISTRY.values() for alias in info.aliases)


def test_every_key_of_a_spec_is_described(specs):
    from stalegrad.models import Problem
    from stalegrad.simulator import Cluster, Experiment, Network, Record

    tables = {"problem", "cluster", "method", "record"}
    keys = {f.name for cls in (Experiment, Cluster, Network, Record) for f in dataclasses.fields(cls)} - tables
    keys |= {*importlib.import_module("inspect").signature(Problem).parameters} - {"options"}
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", specs, re.M)
    assert keys <= {key for key, _ in rows}
    for key, text in rows:
        assert not re.match(r"(Allowed|Default|Must be given)|$", text), f"{key} is not described"


def test_everything_that_a_spec_can_name_is_described(specs):
    from stalegrad.models.networks import NETWORKS
    from stalegrad.models.partitions import PARTITIONS
    from stalegrad.policies.schedules import SCHEDULES
    from stalegrad.policies.synchrony import SYNCHRONIES
    from stalegrad.simulator.timing.availability import AVAILABILITIES
    from stalegrad.simulator.timing.delays import DELAYS

    for registry in (PARTITIONS, SCHEDULES, SYNCHRONIES, AVAILABILITIES, DELAYS):
        for name in registry:
            assert f'### `{{ {registry.key} = "{name}", ... }}`' in specs
    assert all(f"### `{name}`" in specs for name in NETWORKS)


def test_the_spec_that_the_page_shows_is_one(specs):
    from stalegrad.simulator import from_toml

    (spec,) = re.findall(r"```toml\n(.*?)```", specs, re.S)
    assert from_toml(spec).method.name == "k-async"


def test_every_command_and_option_is_described(pages):
    text = pages.commands.text()

    def check(command, name):
        assert f"## `{name}`" in text
        for parameter in command.params:
            if parameter.name != "help" and not getattr(parameter, "hidden", False):
                spelt = parameter.opts[0] if parameter.param_type_name == "option" else parameter.name.upper()
                assert re.search(rf"^\| `{spelt}`.* \| \w", text, re.M), f"{name} {spelt}"
        for child, found in getattr(command, "commands", {}).items():
            check(found, f"{name} {child}")

    check(typer.main.get_command(app), "stalegrad")


# Pictures and pages


def test_the_gallery_shows_every_plot_with_its_code_and_a_text_for_who_cannot_see_it(pages):
    text = (DOCS / "gallery.md").read_text(encoding="utf-8")
    drawn = {picture for _, picture in pages.pictures.code_blocks(text) if picture}
    plots = {name for name in importlib.import_module("stalegrad.analysis").__all__ if name.startswith("plot_")}
    assert plots <= drawn
    assert all(f"### {name}\n" in text for name in plots)
    assert all(len(alt) > 20 for alt in re.findall(r"!\[(.*?)\]\(generated/", text))
    assert len(re.findall(r"!\[", text)) == len(drawn)


def test_a_picture_is_that_of_the_code_above_it(pages):
    text = "```python\nimport stalegrad as sg\nfrom stalegrad.analysis import plot_timeline\n```\n\nWords.\n\n"
    code = "trace = sg.simulate(sg.Cluster(compute=[1.0, {}]), sg.Sync(), updates=4)\nax = plot_timeline(trace)\n"
    text += "".join(
        f"```python\n{code.format(t)}```\n\n![x](generated/pictures/{t}.png)\n\n" for t in (1.0, 3.0, 1.0)
    )
    found = pages.pictures.gallery(text.replace("1.0.png", "one.png").replace("3.0.png", "three.png"))
    assert list(found) == ["one", "three"]
    assert all(picture.startswith(b"\x89PNG") for picture in found.values())
    assert found["one"] != found["three"]


def test_every_synchrony_has_a_timeline(pages, monkeypatch):
    import matplotlib.pyplot as plt

    from stalegrad.policies.synchrony import SYNCHRONIES

    for cls in SYNCHRONIES.values():
        figure = pages.pictures.timeline(cls)
        assert len(figure.axes[0].patches) + len(figure.axes[0].collections) > 0
        plt.close(figure)


def test_every_page_is_reached_from_the_index():
    entries = re.compile(r"```\{toctree\}.*?\n\n(.*?)```", re.S)

    def reached(page):
        text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
        below = [line for block in entries.findall(text) for line in block.split()]
        return {page}.union(*(reached(child) for child in below if not child.startswith("generated/")))

    assert reached("index") == {file.stem for file in DOCS.glob("*.md")}
    notebooks = {f"generated/notebooks/{file.stem}" for file in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks <= set((DOCS / "tutorial.md").read_text(encoding="utf-8").split())


def test_texts_of_docstrings_become_markdown(pages):
    from_docstring = pages.text.inline(
        "``a_b`` and w_{j+1} <- w^2 * |g|, see :class:`~x.y.Rule` at https://x.org/a_b."
    )
    assert from_docstring == r"`a_b` and w\_{j+1} \<- w\^2 \* \|g\|, see `Rule` at <https://x.org/a_b>."
    assert pages.text.markdown("A:\n\n    x = 1\n    y_1") == "A:\n\n```text\nx = 1\ny_1\n```"


# The site


class Links(html.parser.HTMLParser):
    """What a page links to, loads, and can be linked at."""

    def __init__(self, file):
        super().__init__()
        self.links, self.loads, self.anchors, self.images, self.titles = [], [], set(), [], 0
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found[key] for key in ("id", "name") if found.get(key)}
        self.titles += tag == "title"
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag in ("script", "img", "source", "iframe") and found.get("src"):
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "preload", "icon") and found.get("href"):
            self.loads.append(found["href"])
        if tag == "img":
            self.images.append(found.get("alt"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as ``make docs`` builds it, in a folder of its own."""
    if importlib.util.find_spec("sphinx") is None or importlib.util.find_spec("myst_nb") is None:
        pytest.skip("the extra docs is not installed: make docs")
    out = tmp_path_factory.mktemp("site") / "html"
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", DOCS, out]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return out


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere_and_no_link_in_it_is_broken(site):
    found = {file.resolve(): Links(file) for file in site.rglob("*.html") if file.name != "webpack-macros.html"}
    assert len(found) > 250
    broken = []
    for file, page in found.items():
        assert page.titles == 1, file
        assert all(alt for alt in page.images if alt != ""), file
        for address in page.loads:
            assert not re.match(r"(https?:)?//", address), f"{file} loads {address}"
        for address in [*page.links, *page.loads]:
            place, anchor = urldefrag(address)
            if re.match(r"\w+:", address):
                continue
            target = (file.parent / unquote(place.partition("?")[0])).resolve() if place else file
            known = found[target].anchors if target in found else set()
            if not target.exists() or (anchor and target in found and unquote(anchor) not in known):
                broken.append(f"{file.relative_to(site)}: {address}")
    assert broken == []
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


@pytest.mark.slow
def test_every_public_name_is_in_the_built_inventory(site):
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.loads(file.read(), uri="").data
    known = {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}
    expected = {name for room in ROOMS for name, _ in offered(room)}
    expected |= {f"stalegrad.{name}" for name in stalegrad.__all__ if name != "__version__"}
    expected |= {f"stalegrad.policies.methods.{info.__name__ if info.name != 'async' else 'async_'}"
                 for info in REGISTRY.values()}  # fmt: skip
    assert expected - known == set()


@pytest.mark.slow
@pytest.mark.parametrize("word", ["k_async", "staleness"])
def test_the_search_index_has_a_word(site, word):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    stem = {"k_async": "k_async", "staleness": "stale"}[word]
    assert re.search(rf'"?{stem}"?:\[?\d', index)
