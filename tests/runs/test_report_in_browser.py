"""A notebook page in a real browser: what tries to run or to call home does neither."""

import re
import shutil
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import debian
import nbformat
import pytest

from study_lib.runs.report import notebook_page, style

UNPACKED = Path(__file__).resolve().parents[2] / ".browser"
UNPACKED_BROWSER = UNPACKED.joinpath("root", "usr", "lib", "chromium", "chromium-headless-shell")
NAMES = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
BROWSER = next(filter(None, map(shutil.which, (str(UNPACKED_BROWSER), *NAMES))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here: run `make browser`"),
]
RAN = "document.documentElement.setAttribute('data-ran', 'yes')"


@contextmanager
def asked_for():
    """Serve nothing on this machine; yield the address and the list of what was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_):
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{server.server_name}:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def attempts(address):
    """Return markup that would mark the page or ask the server, each in another way."""
    return (
        f"<script>{RAN}</script>",
        f"<script src='{address}/script.js'></script>",
        f'<img src="{address}/picture.png" onerror="{RAN}">',
        f'<img src=x onerror="{RAN}">',
        f'<svg onload="{RAN}"><script>{RAN}</script></svg>',
        f"<iframe src='{address}/frame.html'></iframe>",
        f'<iframe srcdoc="<script>parent.{RAN}</script>"></iframe>',
        f"<style>@import '{address}/style.css'; body {{background: url({address}/back)}}</style>",
        f"<link rel=stylesheet href='{address}/link.css'>",
        f"<meta http-equiv=refresh content='0; url={address}/refresh.html'>",
        f"<video autoplay src='{address}/film.mp4' onerror=\"{RAN}\"></video>",
        f'<details open ontoggle="{RAN}">x</details>',
        f'<math><mtext><table><mglyph><style><img src=x onerror="{RAN}">',
        f'<math><maction actiontype="statusline" href="javascript:{RAN}">x</maction></math>',
        f'<svg><animate onbegin="{RAN}" attributeName=x dur=1s></animate></svg>',
        f'<svg><image href="{address}/svg.png"></image><use href="{address}/a.svg#x"></use></svg>',
        f'<svg><foreignObject><img src=x onerror="{RAN}"></foreignObject></svg>',
        f'<a href="{address}/away" ping="{address}/ping" autofocus onfocus="{RAN}">x</a>',
        f'<form action="{address}/form"><input autofocus onfocus="{RAN}"><button>x</button></form>',
        f'<input type=image src="{address}/input.png" onerror="{RAN}">',
        f'<button autofocus onfocus="{RAN}" formaction="javascript:{RAN}">x</button>',
        f'<object data="{address}/object"></object><embed src="{address}/embed">',
        f'<base href="{address}/base/"><img src="relative.png">',
    )


def shown_by_browser(page, profile):
    """Return the document as the browser has it after its scripts have had time to run."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={profile}", "--virtual-time-budget=3000", "--dump-dom"]
    is_unpacked = str(UNPACKED_BROWSER) == BROWSER
    result = subprocess.run(
        [*command, page.as_uri()],
        env=debian.environment(UNPACKED) if is_unpacked else None,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return result.stdout


POLICY = re.compile('<meta http-equiv="Content-Security-Policy"[^>]*>')
SIZE = {"width": f'5" onload="{RAN}" x="', "height": f"5' onload='{RAN}' x='"}
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
    "awAAAABJRU5ErkJggg=="
)


def hostile_notebook(path, markup):
    """Write a notebook with markup in texts and outputs, and an attribute in an image's size."""
    outputs = [
        nbformat.v4.new_output("display_data", {kind: text, "text/plain": "x"})
        for kind in ("text/html", "image/svg+xml", "text/markdown", "text/latex")
        for text in markup
    ]
    outputs.append(nbformat.v4.new_output("display_data", {"application/javascript": RAN}))
    outputs.append(nbformat.v4.new_output("stream", name="stdout", text="\n".join(markup)))
    for kind, content in (("image/png", PIXEL), ("image/svg+xml", "<svg/>")):
        sized = nbformat.v4.new_output("display_data", {kind: content}, metadata={kind: SIZE})
        outputs += [sized, nbformat.from_dict({**sized, "metadata": SIZE})]
    cells = [nbformat.v4.new_markdown_cell(text) for text in ("# Kept heading", *markup)]
    cells.append(nbformat.v4.new_code_cell("1", outputs=outputs))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_a_page_runs_and_fetches_nothing_that_would_run_elsewhere(tmp_path):
    """Neither with its policy nor without: the markup alone holds nothing that could."""
    notebook, page, bare, control = (
        tmp_path / name for name in ("n.ipynb", "n.html", "bare.html", "control.html")
    )
    with asked_for() as (address, asked):
        markup = attempts(address)
        hostile_notebook(notebook, markup)
        text = notebook_page(notebook, "n.ipynb", style())
        page.write_text(text, encoding="utf-8")
        without_policy, policies = POLICY.subn("", text)
        bare.write_text(without_policy, encoding="utf-8")
        control.write_text("<!DOCTYPE html>" + "\n".join(markup[:4]), encoding="utf-8")

        shown = [shown_by_browser(one, tmp_path / "profile") for one in (page, bare)]
        asked_by_page = list(asked)
        without_filter = shown_by_browser(control, tmp_path / "profile")

    assert policies == 1
    for one in shown:
        assert "Kept heading" in one
        assert PIXEL in one
        assert 'data-ran="yes"' not in one
    assert asked_by_page == []
    # The same markup as a page of its own does both, so the browser would have shown it.
    assert 'data-ran="yes"' in without_filter
    assert {"/script.js", "/picture.png"} <= set(asked)
