"""An executed notebook as a page: its text, code and pictures, and nothing that could run."""

from functools import cache
from pathlib import Path

import nh3
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter
from traitlets.config import Config


def notebook_page(path: Path, source: str, css: str) -> str:
    """Return the page of a notebook.

    Scripts, styles, event handlers and frames in outputs and texts are taken out, and links lose
    their targets on other hosts; the page also forbids the browser to run or to fetch anything.

    Parameters
    ----------
    path
        The executed notebook.
    source
        Its place relative to the report's index.
    css
        Style sheet.
    """
    body, _ = _exporter().from_filename(str(path))
    return template("notebook.html.j2").render(
        title=path.stem.replace("__", " "),
        css=css,
        highlighting=HtmlFormatter(style="default").get_style_defs(".highlight"),
        body=body,
        source=source,
    )


@cache
def _exporter() -> HTMLExporter:
    """Return what makes markup of notebooks, one for all: its templates take long to compile."""
    settings = {
        "sanitize_html": True,
        "exclude_input_prompt": True,
        "exclude_output_prompt": True,
        "exclude_anchor_links": True,
    }
    exporter = HTMLExporter(template_name="basic", config=Config({"HTMLExporter": settings}))
    exporter.register_filter("clean_html", _harmless)
    return exporter


@cache
def template(name: str) -> Template:
    """Return a page's template; what is put into it is text, never markup."""
    loader = PackageLoader("study_lib.runs")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template(name)


def _harmless(markup: str) -> str:
    """Return markup with the tags of texts and tables alone, and no way out of the page."""
    attributes = nh3.ALLOWED_ATTRIBUTES | {"*": {"class"}}  # the classes of highlighted code
    return nh3.clean(
        str(markup), attributes=attributes, attribute_filter=_kept_attribute, link_rel=None
    )


def _kept_attribute(_tag: str, name: str, value: str) -> str | None:
    if name in {"href", "src", "cite"}:
        return value if value.startswith(("#", "data:image/")) else None
    return value
