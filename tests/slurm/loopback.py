"""SLURM on this machine alone: Debian's packages unpacked into a folder, three daemons, no root.

Nothing is installed and nothing listens to other machines. Programs of SLURM find its settings by
the variable SLURM_CONF, which jobs and job steps lose; so every client is wrapped in a script.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLIENTS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo", "sacct")
START_S = 60
CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
PluginDir={plugins}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
KillWait=10
MinJobAge=3600
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory_mb} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def why_not(folder: Path) -> str | None:
    """Return why SLURM cannot be started from a folder; None if it can."""
    if sys.platform != "linux":
        return "SLURM's packages are Debian's"
    if not (folder / "root" / "usr" / "sbin" / "slurmctld-wlm").is_file():
        return f"no SLURM in {folder.name}: run `make slurm-test`"
    return None


@contextmanager
def slurm(unpacked: Path, cores: int) -> Iterator[dict[str, str]]:
    """Run SLURM with one node of some cores; give the environment in which `sbatch` is found."""
    root = unpacked.resolve() / "root"
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: names of sockets are
    libraries = next((root / "usr" / "lib").glob("*-linux-gnu"))
    plugins = libraries / "slurm-wlm"
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    environment = os.environ | {
        "LD_LIBRARY_PATH": f"{plugins}:{libraries}",
        "SLURM_CONF": str(folder / "slurm.conf"),
    }
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        ports = first.getsockname()[1], second.getsockname()[1]
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=socket.gethostname().split(".")[0],
            controller_port=ports[0],
            node_port=ports[1],
            user=subprocess.check_output(["id", "--user", "--name"], text=True).strip(),
            folder=folder,
            plugins=plugins,
            cores=cores,
            memory_mb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 - 500,
        )
    )
    for name in CLIENTS:
        script = folder / "bin" / name
        script.write_text(
            f"#!/bin/sh\nexport SLURM_CONF={folder}/slurm.conf\n"
            f'LD_LIBRARY_PATH={plugins}:{libraries} exec {root}/usr/bin/{name} "$@"\n'
        )
        script.chmod(0o755)
    daemons = []
    try:
        for command in _daemons(root, folder):
            with (folder / f"{Path(command[0]).name}.out").open("w") as log:
                daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            time.sleep(1)
        found = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        _wait_for_node(found, folder)
        yield found
    finally:
        subprocess.run([folder / "bin" / "scancel", "--user", str(os.getuid())], check=False)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in daemons:
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
        shutil.rmtree(folder, ignore_errors=True)  # a daemon that was killed may still write there


def _daemons(root: Path, folder: Path) -> list[list[str]]:
    programs = root / "usr" / "sbin"
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    munged = [str(programs / "munged"), "--foreground", "--force"]
    munged += [
        f"--{name}={folder}/munge.{name.split('-')[0]}"
        for name in ("socket", "key-file", "log-file", "pid-file", "seed-file")
    ]
    return [
        munged,
        [str(programs / "slurmctld-wlm"), "-D"],
        [str(programs / "slurmd-wlm"), "-D", "-d", str(programs / "slurmstepd-wlm")],
    ]


def _wait_for_node(environment: dict[str, str], folder: Path) -> None:
    deadline = time.monotonic() + START_S
    state = ""
    while time.monotonic() < deadline:
        asked = ["sinfo", "--noheader", "--format=%T"]
        result = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False)
        state = result.stdout.strip()
        if state == "idle":
            return
        time.sleep(0.5)
    logs = "\n".join(path.read_text()[-2000:] for path in folder.glob("*.log"))
    raise RuntimeError(f"SLURM's node is {state!r} after {START_S} s, not idle:\n{logs}")
