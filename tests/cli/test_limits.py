"""Values that no study can use: refused before anything is computed, with bound and reason."""

import json
import re
import time

import pytest

from study_lib.design.presets import load_design, parse_design
from study_lib.errors import InputError
from study_lib.phases.scene import scene_of
from study_lib.runs import room
from study_lib.runs.plan import plan_jobs

REFUSED = {
    ("scan.step_px=1e9",): r"found 1e\+09|found 1000000000; at most 1024: the largest patch",
    ("scan.rows=1e8",): "found 100000000; at most 2097152: a data set holds no more positions",
    ("scan.rows=1e6",): "1000000 x 15 make a raster of 15000000 positions or more; at most 2097152",
    ("scan.kind=fermat", "scan.rows=2", "scan.columns=1e6"): "make a fermat of .* at most 2097152",
    ("scan.rows=2000", "scan.step_px=30"): "an object of 120010 x .* at most 20000 along a side",
    ("scan.jitter_px=1e9",): "at most 1024: the largest patch; use scan.kind uniform",
    ("metrics.registration_limit_px=17",): "= 17; at most 16 for patch_size_px = 32: half a patch",
    ("thinned.widths=[1e9, 2, 3]",): "at most 1024: weights and time grow with the square",
    ("training.filters_scale=1e9",): "at most 32: weights and time grow with the square",
    ("training.batch_size=1000",): "= 1000; at most 142: view baseline has 150 groups",
    ("iterative.judged_share=0.9999999",): "at most 0.99: more leaves nothing to the other part",
    ("thinned.judged_share=0.99", "doses=[20]"): "it leaves 30 photons to one part; at least 100",
    ("thinned.photon_shares=[1e-9, 0.5]",): "found 1e-09; at least 0.01: less leaves nothing",
    ("detector.dark_counts=20",): r"= 20; at most 9\.76562: 1024 pixels would count more",
    (
        "mismatch.background_counts=[1, 20]",
    ): r"= 20; at most 9\.76562: 1024 pixels would count more",
    ("mismatch.bandwidth_percent=21",): "found 21; at most 20: beyond, object and probe are not",
    ("detector.saturation_counts=1",): "= 1; at least 10: 1024 pixels could not count the 10000",
    ("detector.beamstop_radius_px=8",): r"= 8 leaves 0\.00% of the light .*; at least 1% is needed",
    ("iterative.solver.total_variation=1e30",): r"found 1e\+30; at most 1e\+09: a jump",
    ("iterative.solver.total_variation=1e8",): r"= 1e\+08; at most 10000: a jump .* flat",
    (
        "views=[{name: dense, gridsize: 2, target_overlap: 0.99}]",
    ): "= 0.99; this scan's train split",
    ("neighbor_count=140",): "allows 0.146 to 0.153 with neighbor_count = 140",
    ("probe.defocus_radius_px=1e9",): r"= 1e\+09; at most 16 .* the wave comes in again",
    ("probe.aperture_per_px=1e-300",): r"= 1e-300; at least 0\.03125 .* narrower than a detector",
    ("specimen.kind=siemens_star", "specimen.spoke_count=500"): "= 500; at most 125: at the rim",
    ("replicates=1e9",): "22000000002 jobs; their plan takes .* GiB of memory, this process may",
    (
        "replicates=1e6",
        "mismatch.position_error_px=[1]",
    ): "2 times for the mismatch: 44000002 jobs; their plan takes .* GiB of memory",
    ("replicates=1" + 300 * "0",): "their plan takes over 1e.15 GiB of memory",
    ("split.guard_band_px=20000",): "at most 4096: four of the largest patches",
    ("mismatch.position_error_px=1e9",): "found .*; at most 256: a quarter of the largest patch",
    ("mismatch.position_error_px=8.1",): "= 8.1; at most 8 for patch_size_px = 32: farther off",
    ("mismatch.position_error_px=-1",): "found -1; input should be greater than or equal to 0",
    ("mismatch.defocus_error_percent=101",): "found 101; at most 100: twice the defocus is another",
    (
        "mismatch.defocus_error_percent=80",
        "probe.defocus_radius_px=10",
    ): r"mismatch.defocus_error_percent = 80; at most 60 .* the wave comes in again",
    (
        "mismatch.defocus_error_percent=5",
        "probe.defocus_radius_px=0",
    ): "= 5: the probe is in focus, which leaves nothing to take percents of; raise probe.defocus",
    ("mismatch.aberration_error_percent=51",): "found 51; at most 50: with half a wave a lens has",
    ("mismatch.flux_jitter_percent=101",): "found 101; at most 100: few frames of such a source",
    ("mismatch.position_error_px=[1, 8.1]",): "= 8.1; at most 8 for patch_size_px = 32: farther",
    ("mismatch.position_error_px=[1, 300]",): "found 300; at most 256: a quarter of the largest",
    ("mismatch.position_error_px=[0, 1]",): r"found \[0, 1\]; leave out 0: the run itself is",
    ("mismatch.position_error_px=[1, 2, 1]",): r"found \[1, 2, 1\]; leave out the repeated value",
    ("mismatch.position_error_px=[1, -2]",): "the values of a list are above 0",
    ("mismatch.position_error_px=[]",): "mismatch.position_error_px: empty; give at least one",
    ("mismatch.position_error_px=[1, a]",): "position_error_px.1: found 'a'; input should be a",
    (f"mismatch.flux_jitter_percent={list(range(1, 22))}",): "found 21 values; at most 20: each is",
    (
        "mismatch.defocus_error_percent=[10, 80]",
        "probe.defocus_radius_px=10",
    ): r"mismatch.defocus_error_percent = 80; at most 60 .* the wave comes in again",
    ("mismatch.defocus=5",): "mismatch.defocus: unknown name; known here: aberration_error_percent",
    ("doses=[1e300]",): r"found 1e\+300; at most 1e\+15: more photons than any source",
}


@pytest.mark.parametrize("settings", REFUSED, ids=" ".join)
@pytest.mark.parametrize("command", ["run", "plan", "design"])
def test_a_value_that_no_study_can_use_is_refused_with_its_bound(
    command, settings, tmp_path, study
):
    words = [word for setting in settings for word in ("--set", setting)]
    started = time.process_time()

    code, _, error = study(command, "--preset", "smoke", *words)

    assert code == 2
    pattern = REFUSED[settings]
    assert re.search(pattern, error), error
    assert "Traceback" not in error
    assert time.process_time() - started < 5
    assert list(tmp_path.iterdir()) == []


def leaves(content: object, path: tuple = ()) -> list[tuple]:
    items = content.items() if isinstance(content, dict) else enumerate(content)
    found = []
    for key, value in items:
        if isinstance(value, dict | list):
            found += leaves(value, (*path, key))
        elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            found.append((*path, key))
    return found


FREE = {"replicates", "base", "thinned", "s_img"}  # by memory and disk; tables; shares

MISMATCHES = (
    "position_error_px",
    "defocus_error_percent",
    "aberration_error_percent",
    "flux_jitter_percent",
    "background_counts",
    "bandwidth_percent",
)


@pytest.mark.parametrize("kind", ["grains", "siemens_star", "power_law", "cells"])
@pytest.mark.parametrize("huge", [1e18, 10**18, -1, 10**400], ids=["1e18", "int", "-1", "long"])
def test_every_number_of_a_design_has_an_upper_limit(kind, huge):
    settings = [f"specimen.kind={kind}", *(f"mismatch.{name}=1" for name in MISMATCHES)]
    plain = load_design("smoke", settings).model_dump(mode="json")
    numbers = [path for path in leaves(plain) if path[-1] not in FREE]

    for path in numbers:
        content = json.loads(json.dumps(plain))
        node = content
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = huge
        with pytest.raises(InputError) as caught:
            parse_design(content, "test")
        assert str(path[-1]) in str(caught.value) or str(path[-2]) in str(caught.value)
    assert len(numbers) > 60
    assert {path[-1] for path in numbers} >= set(MISMATCHES)


def test_a_text_longer_than_any_design_is_refused_before_it_takes_time(tmp_path, study):
    (tmp_path / "long.yaml").write_text("doses: [" + "1, " * 10**6 + "]")
    started = time.process_time()

    code, _, error = study("plan", "--preset", "long.yaml")

    assert code == 2
    assert "3000009 characters; at most 131072 are read" in error
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "settings",
    [(), ("thinned=null",), ("replicates=3", "doses=[10, 1e4]"), ("compare_train=false",)],
)
def test_the_number_of_jobs_is_known_without_making_them(settings):
    design = load_design("smoke", settings)

    assert room.job_count(design) == len(plan_jobs(design))


def test_memory_and_disk_alone_bound_the_number_of_conditions(tmp_path, monkeypatch, study):
    many = ("plan", "--preset", "smoke", "--replicates", "40")
    needed = room.JOB_DISK_BYTES * 882
    plenty = study(*many)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: Free(needed))
    small_disk = study(*many)
    monkeypatch.setattr(room, "memory_bytes", lambda: 10**6)
    small_memory = study(*many)

    assert (plenty.code, small_disk.code, small_memory.code) == (0, 2, 2)
    assert "replicates 40, doses 1, views 3: 882 jobs; they write about" in small_disk.err
    assert (
        "their plan takes 0.00205 GiB of memory, this process may use 0.000931 GiB"
        in small_memory.err
    )
    assert list(tmp_path.iterdir()) == []


class Free:
    """A disk with so many bytes left."""

    def __init__(self, free: int) -> None:
        self.free = free


def test_a_job_that_memory_does_not_hold_is_named_unless_a_cluster_takes_it(
    tmp_path, monkeypatch, study
):
    design = load_design("smoke")
    jobs = plan_jobs(design)
    scene = scene_of(design)
    monkeypatch.setattr(room, "memory_bytes", lambda: 500 * 2**20)

    code, _, error = study("plan", "--preset", "smoke")

    assert room.data_bytes(design, scene) == (4 + 2 * 4) * 32**2 * 300
    assert len(jobs) == 24
    assert code == 2
    assert "04_reconstruct__dose_10000" in error
    assert "of memory, this process may use 0.488 GiB; lower the scan" in error


def test_a_dry_run_refuses_a_profile_that_does_not_exist(study):
    code, _, error = study("run", "--preset", "smoke", "--dry-run", "--profile", "junk")

    assert code == 2
    assert "profile 'junk': no config.yaml there; choose pbs, slurm" in error
