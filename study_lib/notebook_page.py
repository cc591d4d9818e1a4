"""An executed notebook as a page: its text, code and pictures, and nothing that could run."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter
from traitlets.config import Config


def notebook_page(path: Path, source: str, css: str) -> str:
    """Return the page of a notebook.

    Scripts, event handlers and frames in outputs and texts are taken out; the page also forbids
    the browser to run or to fetch anything.

    Parameters
    ----------
    path
        The executed notebook.
    source
        Its place relative to the report's index.
    css
        Style sheet.
    """
    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="basic", config=Config(_exporter_settings())
    )
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
