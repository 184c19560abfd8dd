"""Settings of Sphinx: `make docs` builds the site into `site/html`; generated pages come from `scripts/pages`."""

import re
import sys
from pathlib import Path

from sphinx.ext.napoleon import GoogleDocstring

import stalegrad

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "scripts"))

import pages  # noqa: E402

project, author, release = "stalegrad", "the authors of stalegrad", stalegrad.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_nb",
    "sphinx_copybutton",
]
exclude_patterns = ["_static"]

highlight_language = "text"  # of what stands below code: its output

# Markdown; links to files of the checkout that are no pages become downloads
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebooks keep the outputs of `make notebooks`, and the tests execute them
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Names of types stand as they are written: what they allow is in the text
autodoc_type_aliases = {name: name for name in pages.names.types()}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 88
napoleon_use_ivar = True
napoleon_use_rtype = False

# Everything that a page needs lies beside it: no network, no fonts or scripts of others
html_theme = "pydata_sphinx_theme"
html_title = f"stalegrad {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "footer_start": [],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
html_context = {"default_mode": "auto"}
html_sidebars = {page: [] for page in ("index", "gallery", "changelog", "contributing")}


def links(app, name, content):
    """Let links to ``../notebooks`` lead to the pages made of the notebooks, and call a page by its name alone."""
    text = content[0].replace("](../notebooks/", "](generated/notebooks/")
    content[0] = re.sub(r"\[(?:docs/)?([\w-]+)\.md\]\(", r"[\1](", text)


def formulas(app, what, name, obj, options, lines):
    """Let |x| in a docstring be a norm, which reStructuredText takes for a substitution."""
    code = False
    for number, line in enumerate(lines):
        code = line.lstrip().startswith(">>>") or (code and bool(line.strip()))
        if not code:
            parts = line.split("``")
            lines[number] = "``".join(
                [part if odd % 2 else part.replace("|", "\\|") for odd, part in enumerate(parts)]
            )


def whole(self):
    """Keep the docstring of a property whole: Napoleon takes what stands before a colon for its type."""
    first, *rest = self._consume_to_end()
    return self.__class__([first, *self._dedent(rest)], self._config).lines()


GoogleDocstring._parse_attribute_docstring = whole


def signature(app, what, name, obj, options, arguments, returns):
    """Spell an alias of types in a union as its name; Sphinx spells what it has put in its place."""
    return tuple(text and re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text) for text in (arguments, returns))


def curated(app, env):
    """Let ``stalegrad.Cluster`` be a second name of ``stalegrad.simulator.Cluster``: references take the first."""
    objects = env.domains.python_domain.objects
    for name, entry in objects.items():
        if name.count(".") == 1:
            objects[name] = entry._replace(aliased=True)


def setup(app):
    """Write the generated pages before Sphinx looks for pages."""
    app.connect("config-inited", lambda app, config: pages.write_all(HERE))
    app.connect("autodoc-process-signature", signature)
    app.connect("env-updated", curated)
    app.connect("source-read", links)
    app.connect("autodoc-process-docstring", formulas)
