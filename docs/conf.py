"""The site: `make docs` builds it from these pages and the docstrings. A warning ends the build there."""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from sphinx.application import Sphinx

import pontryagin

project = "pontryagin"
author = "the pontryagin developers"
version = release = pontryagin.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "public_names"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_site"]
html_theme = "furo"
html_static_path = ["figures/narrow", "site.css"]  # the first: of a figure, the variant for phones
html_css_files = ["site.css"]
html_title = f"pontryagin {release}"
myst_heading_anchors = 4
myst_fence_as_directive = {"math"}  # ```math, as forges write it
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False  # those of torch are not ours
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100

_HERE = {"../CONTRIBUTING.md": "contributing.md", "../CHANGELOG.md": "changes.md"}
"""Pages of the repository that the site has under another name."""


def _links(app: Sphinx, page: str, source: list[str]) -> None:
    for there, here in _HERE.items():
        source[0] = source[0].replace(f"]({there}", f"]({here}")


def _pictures(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: object) -> None:
    """Figures that have a variant for phones show it there."""
    def both(image: re.Match[str]) -> str:
        if not (Path(app.srcdir) / "figures" / "narrow" / image["name"]).exists():
            return image[0]
        narrow = context["pathto"](f"_static/{image['name']}", resource=True)
        return f'<picture><source media="(max-width: 40rem)" srcset="{narrow}">{image[0]}</picture>'

    if "body" in context:
        context["body"] = re.sub(r'<img [^>]*src="[^"]*_images/(?P<name>[\w-]+\.png)"[^>]*>', both,
                                 context["body"])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _links)
    app.connect("html-page-context", _pictures)
