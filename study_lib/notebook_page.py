"""An executed notebook as a page: its text, code and pictures, and nothing that could run."""

from pathlib import Path

import nh3
from jinja2 import Environment, PackageLoader, StrictUndefined
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
    exporter = HTMLExporter(template_name="basic", config=Config(_exporter_settings()))
    exporter.register_filter("clean_html", _harmless)
    body, _ = exporter.from_filename(str(path))
    templates = Environment(
        loader=PackageLoader("study_lib"), autoescape=True, undefined=StrictUndefined
    )
    return templates.get_template("notebook.html.j2").render(
        title=path.stem.replace("__", " "),
        css=css,
        highlighting=HtmlFormatter(style="default").get_style_defs(".highlight"),
        body=body,
        source=source,
    )


def _exporter_settings() -> dict[str, dict[str, object]]:
    return {
        "HTMLExporter": {
            "sanitize_html": True,
            "exclude_input_prompt": True,
            "exclude_output_prompt": True,
            "exclude_anchor_links": True,
        }
    }


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
