"""A wanted quality, such as ``phase_error=0.05`` or ``frc=20nm``, for which doses are asked."""

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from study_lib.errors import InputError

# Column of the study table, whether less is better, its unit, and the largest level.
QUALITIES = {
    "phase_error": ("phase_mse_rad2", True, "rad", 10.0),
    "frc": ("frc_crossing", False, "of Nyquist", 1.0),
    "ssim": ("phase_ssim", False, "", 1.0),
    "ms_ssim": ("phase_ms_ssim", False, "", 1.0),
    "psnr": ("phase_psnr_db", False, "dB", 200.0),
}
WORDS = {
    "phase_error": "phase error",
    "frc": "FRC crossing",
    "ssim": "phase SSIM",
    "ms_ssim": "phase MS-SSIM",
    "psnr": "phase PSNR",
}
TEXT = re.compile(r"(?P<name>[a-z_]+) *= *(?P<level>[0-9.eE+-]+) *(?P<unit>nm)?")
USUAL = ("phase_error=0.1", "frc=0.5")


@dataclass(frozen=True)
class Wanted:
    """A score and the level that it has to reach.

    ``level`` is in the unit of the score. That of ``frc`` is a share of the Nyquist frequency, or,
    if ``is_in_nm``, the half period in nanometres that is to be resolved.
    """

    name: str
    level: float
    is_in_nm: bool = False

    @property
    def words(self) -> str:
        """What is wanted, for people."""
        if self.is_in_nm:
            return f"a half-period resolution of {self.level:g} nm (FRC)"
        unit = QUALITIES[self.name][2]
        return f"{WORDS[self.name]} {self.level:g}{' ' if unit else ''}{unit}"

    def level_at(self, pixel_m: float | None) -> float:
        """Return the level in the unit of the score.

        Raises
        ------
        InputError
            If that needs the size of an object pixel, which is not known, or lies beyond Nyquist.
        """
        if not self.is_in_nm:
            return self.level
        if pixel_m is None:
            raise InputError(
                f"wanted {self.name}={self.level:g}nm: the size of an object pixel is not known; "
                "set pixel_size_m, or want a share of Nyquist, like frc=0.5"
            )
        share = pixel_m * 1e9 / self.level
        if share > 1:
            raise InputError(
                f"wanted {self.name}={self.level:g}nm: finer than the object pixel of "
                f"{pixel_m * 1e9:.3g} nm can show; want {pixel_m * 1e9:.3g}nm or coarser"
            )
        return share


def wanted_of(text: str) -> Wanted:
    """Return what a text such as ``frc=20nm`` wants.

    Raises
    ------
    InputError
        If it is no score and level.

    Examples
    --------
    >>> from study_lib.design.wanted import wanted_of
    >>> wanted_of("phase_error=0.05").words
    'phase error 0.05 rad'
    >>> wanted_of("frc=20nm").level_at(pixel_m=1e-8)
    0.5
    """
    found = TEXT.fullmatch(text.strip())
    try:
        name, level = (found["name"], float(found["level"])) if found else ("", 0.0)
    except ValueError:
        name, level = "", 0.0
    if not found or name not in QUALITIES or (found["unit"] and name != "frc"):
        raise InputError(
            f"wanted {text!r}: write a score and a level, like phase_error=0.05, frc=0.5 (share of "
            f"Nyquist), frc=20nm, ssim=0.9; scores are {', '.join(QUALITIES)}"
        )
    in_nm = bool(found["unit"])
    most = 1e6 if in_nm else QUALITIES[name][3]
    if not 0 < level <= most:
        raise InputError(f"wanted {text!r}: the level is above 0 and at most {most:g}")
    return Wanted(name, level, in_nm)


def _checked(text: str) -> str:
    try:
        wanted_of(text)
    except InputError as error:
        raise ValueError(str(error)) from None
    return text


WantedText = Annotated[str, AfterValidator(_checked)]
