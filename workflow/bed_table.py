"""Write the table of the test bed into docs/results.md, from the tables kept in the project.

python workflow/bed_table.py            # after new tables in reports/published
python workflow/bed_table.py --check    # exit code 1 if the page has other numbers
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from study_lib.arm_names import SELF_TAUGHT, SOLVER_ALTERNATING, THINNING_NET
from study_lib.errors import InputError
from study_lib.runs.science import Science, read_science
from study_lib.scores.paired import OVER_SPECIMENS, PairedGain

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- test bed: written by workflow/bed_table.py -->", "<!-- end of the test bed -->"
ARMS = {
    "lsqml-chosen": "LSQML chosen",
    "solver-denoised": "solver denoised",
    SOLVER_ALTERNATING: "solver alternating",
    "self-taught-base": "base of self-taught",
    THINNING_NET: "taught by the train split",
    SELF_TAUGHT: "self-taught",
}
DECIDES = "phase_psnr_db"
ROUNDS_TO_NOTHING_DB = 0.05


def published_bed(folder: Path) -> Science:
    """Return the test bed of all tables that are kept in the project."""
    tables = sorted(folder.glob("science_*"))
    if not tables:
        raise InputError(f"{folder}: no tables science_...; copy those of `study science` there")
    return read_science({}, earlier=tables, arm=SELF_TAUGHT)


def lines_of(science: Science) -> Iterator[str]:
    """Yield the table, and what it was made with."""
    gains = {
        (one.specimen, one.dose, one.view): one
        for one in science.gains
        if (one.metric, one.opponent) == (DECIDES, SOLVER_ALTERNATING)
        and one.specimen != OVER_SPECIMENS
    }
    means = {
        (one["specimen"], one["dose"], one["view"], one["arm"]): one for one in science.means()
    }
    titles = [*ARMS.values(), "gain over solver alternating [dB]"]
    titles += ["phase error / Wiener", "that of its base"]
    yield "| specimen | photons | view | seeds | " + " | ".join(titles) + " |"
    yield "|" + "---|" * (4 + len(titles))
    for (specimen, dose, view), gain in gains.items():
        of_arms = [means.get((specimen, dose, view, arm)) for arm in ARMS]
        own = means[specimen, dose, view, SELF_TAUGHT]
        cells = [specimen, f"{dose:.0e}".replace("e+0", "e"), view, f"{own['seeds']}"]
        cells += map(_scores, of_arms)
        base = means.get((specimen, dose, view, "self-taught-base"))
        cells += [_gain(gain), *(_over_wiener(mean) for mean in (own, base))]
        yield f"| {' | '.join(cells)} |"
    yield ""
    for line in science.origin_lines():
        yield f"- {line}"


def _scores(mean: dict[str, Any] | None) -> str:
    """Return PSNR and centred SSIM of an arm, and how often it was refused."""
    if mean is None:
        return ""
    if mean[DECIDES] is None:
        return "no score"
    spread = mean[f"{DECIDES}_std"]
    decimals = 1 if spread is None or spread >= ROUNDS_TO_NOTHING_DB else 2
    psnr = f"{mean[DECIDES]:.{decimals}f}"
    psnr += "" if spread is None else f" ± {spread:.{decimals}f}"
    refused = f"; refused in {mean['refused']} of {mean['seeds']}" if mean["refused"] else ""
    return f"{psnr} / {mean['phase_ssim_centred']:.3f}{refused}"


def _over_wiener(mean: dict[str, Any] | None) -> str:
    value = None if mean is None else mean["phase_error_over_wiener"]
    return "" if value is None else f"{value:.2f}"


def _gain(gain: PairedGain) -> str:
    if gain.gain is None:
        return "no score"
    if gain.low is None or gain.high is None:
        return f"{gain.gain:+.2f}"
    beyond = ", beyond chance" if gain.is_beyond_chance else ""
    return f"{gain.gain:+.2f} ({gain.low:+.2f} to {gain.high:+.2f}){beyond}"


def with_table(text: str, lines: Iterator[str]) -> str:
    """Return a text whose part between the two marks is a table."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"no {BEGIN} and {END} to write the table between")
    return "\n".join([f"{before}{BEGIN}", "", *lines, "", f"{END}{after}"])


def main() -> None:
    """Write the page, or say whether it is as it would be written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "results.md")
    parser.add_argument("--tables", type=Path, default=ROOT / "reports" / "published")
    options = parser.parse_args()
    text = options.page.read_text(encoding="utf-8")
    wanted = with_table(text, lines_of(published_bed(options.tables)))
    if not options.check:
        options.page.write_text(wanted, encoding="utf-8")
    elif wanted != text:
        sys.exit(f"{options.page}: other numbers than {options.tables}; run workflow/bed_table.py")


if __name__ == "__main__":
    main()
