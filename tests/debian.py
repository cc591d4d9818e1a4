"""Debian's packages unpacked into a folder, with what of theirs this machine lacks; no root.

python tests/debian.py FOLDER PACKAGE ...    # needs apt-get and dpkg

Nothing is installed: programs run from ``FOLDER/root`` with the environment of :func:`environment`.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path


def unpack(folder: Path, packages: list[str]) -> None:
    """Fetch packages and whatever they need that is not installed, and unpack them."""
    if shutil.which("apt-get") is None:
        sys.exit(
            f"{', '.join(packages)}: fetched by apt-get, which this system has not; use Debian"
        )
    archives = folder / "packages"
    archives.mkdir(parents=True, exist_ok=True)
    command = ["apt-get", "install", "--simulate", "--no-install-recommends", *packages]
    plan = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    lacking = re.findall(r"^Inst (\S+)", plan, re.MULTILINE)
    subprocess.run(["apt-get", "download", "--quiet", *lacking], cwd=archives, check=True)
    for archive in archives.glob("*.deb"):
        subprocess.run(["dpkg", "--extract", str(archive), str(folder / "root")], check=True)


def environment(folder: Path) -> dict[str, str]:
    """Return this process's environment, with the unpacked libraries found first."""
    libraries = next((folder / "root" / "usr" / "lib").glob("*-linux-gnu"))
    inside = [libraries, *(path for path in libraries.iterdir() if path.is_dir())]
    return os.environ | {"LD_LIBRARY_PATH": ":".join(map(str, inside))}


if __name__ == "__main__":
    unpack(Path(sys.argv[1]).resolve(), sys.argv[2:])
