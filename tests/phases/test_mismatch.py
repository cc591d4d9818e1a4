"""Data made with a mismatch: files say nothing of it to an arm, and every arm pays for it."""

import re
from dataclasses import replace

import numpy as np
import pytest
from tiny_runs import generated, with_views

from study_lib.data.archive import read_npz
from study_lib.data.contract import load_dataset, save_dataset, validate
from study_lib.design.axes import SPLITS
from study_lib.errors import InputError
from study_lib.figures.results import phase_error_spectra
from study_lib.files import read_json
from study_lib.phases import dataset, overlap
from study_lib.phases.compare import compare, comparison_figure, limit_arrays, limit_of
from study_lib.phases.mismatch import truly_lit
from study_lib.phases.reconstruct import reconstruct
from study_lib.phases.summary import summarize, summary_figures
from study_lib.physics.likelihood import expected_in_parts, pattern_residuals
from study_lib.physics.measurement import Measurement
from study_lib.physics.simulation import simulate
from study_lib.runs.run import Run, base_data, create_run
from study_lib.scores.photon_limit import ring_power
from study_lib.scores.shown_tables import notes_of, origin_text
from study_lib.solvers.solver import SolverSettings, solve_measurement

DOSE = 1e5
LARGE = ("scan.rows=16", "scan.columns=16", f"doses=[{DOSE}]")
ALL = (
    "mismatch.position_error_px=0.8",
    "mismatch.defocus_error_percent=20",
    "mismatch.aberration_error_percent=6",
    "mismatch.flux_jitter_percent=5",
)
OF_LIGHT = ALL[:3]
COLUMNS = {
    "mismatch_position_px": 0.8,
    "mismatch_defocus_percent": 20.0,
    "mismatch_aberration_percent": 6.0,
    "mismatch_flux_percent": 5.0,
}


class Recorded:
    """The arguments of every simulation, by the splits that it was of."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[dict] = []
        monkeypatch.setattr(dataset, "simulate", self)

    def __call__(self, **given):
        self.calls.append(given)
        return simulate(**given)


def whole_files(run: Run) -> dict[str, dict[str, np.ndarray]]:
    dose = run.design.doses[0]
    return {split: load_dataset(run.condition(dose, split=split).whole_file)[0] for split in SPLITS}


def places_of(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, tiny_design_with) -> Run:
    return generated(tmp_path_factory.mktemp("plain"), tiny_design_with(*LARGE))


@pytest.fixture(scope="module")
def wrong(tmp_path_factory, tiny_design_with) -> Run:
    return generated(tmp_path_factory.mktemp("wrong"), tiny_design_with(*LARGE, *ALL))


def test_a_mismatch_of_zero_changes_no_bit(tmp_path, plain, tiny_design_with):
    zeros = [setting.partition("=")[0] + "=0" for setting in ALL]

    zero = generated(tmp_path, tiny_design_with(*LARGE, *zeros))

    assert zero.design == plain.design
    for split in SPLITS:
        first, second = (run.condition(DOSE, split=split).whole_file for run in (plain, zero))
        assert first.read_bytes() == second.read_bytes()


def test_files_hold_the_nominal_positions_and_probe_and_other_counts(plain, wrong):
    """All but the counts is, bit by bit, what a run without a mismatch writes."""
    for split in SPLITS:
        without, with_it = (whole_files(run)[split] for run in (plain, wrong))

        assert without.keys() == with_it.keys()
        for key in without.keys() - {"diffraction"}:
            np.testing.assert_array_equal(without[key], with_it[key])
        assert (without["diffraction"] != with_it["diffraction"]).mean() > 0.5


def test_the_light_falls_at_positions_off_by_the_asked_distance(
    tmp_path, monkeypatch, tiny_design_with
):
    recorded = Recorded(monkeypatch)

    run = generated(tmp_path, tiny_design_with(*LARGE, "mismatch.position_error_px=1.5"))

    (call,) = recorded.calls
    light, files = call["true_light"], whole_files(run)
    assert light.probe is call["probe"]
    assert light.brightness == {}
    errors = [light.positions_px[split] - places_of(files[split]) for split in SPLITS]
    assert np.sqrt((np.concatenate(errors) ** 2).mean()) == pytest.approx(1.5, rel=0.1)
    assert abs(np.corrcoef(errors[0].ravel(), errors[1].ravel())[0, 1]) < 0.2
    for split in SPLITS:
        nominal, true = places_of(files[split]), light.positions_px[split]
        assert (true.min(axis=0) >= nominal.min(axis=0)).all()
        assert (true.max(axis=0) <= nominal.max(axis=0)).all()


def test_the_mean_dose_is_kept_and_frames_differ_by_the_asked_jitter(tmp_path, tiny_design_with):
    """Compared frame by frame with the run without it: the specimen absorbs alike in both."""
    plain, wrong = (
        generated(tmp_path / name, tiny_design_with(*LARGE, *settings))
        for name, settings in {"plain": (), "wrong": ("mismatch.flux_jitter_percent=10",)}.items()
    )
    photons = [
        np.concatenate(
            [(one["diffraction"].astype(float) ** 2).sum(axis=(1, 2)) for one in parts.values()]
        )
        for parts in (whole_files(plain), whole_files(wrong))
    ]

    assert photons[1].mean() == pytest.approx(DOSE, abs=5 * np.sqrt(DOSE / len(photons[1])))
    ratio = photons[1] / photons[0]
    assert np.sqrt(ratio.var() - 2 / DOSE) == pytest.approx(0.1, rel=0.15)


def test_the_same_seed_gives_the_same_data_and_another_replicate_other_errors(
    tmp_path, wrong, tiny_design_with
):
    again = generated(tmp_path / "again", tiny_design_with(*LARGE, *ALL))
    other = generated(tmp_path / "other", tiny_design_with(*LARGE, *ALL, "replicate=1"))

    for split in SPLITS:
        first, same, second = (
            run.condition(DOSE, split=split).whole_file for run in (wrong, again, other)
        )
        assert first.read_bytes() == same.read_bytes()
        measurement, metadata = wrong.condition(DOSE, split=split).measurement(), read_npz(first)[1]
        true, true_of_other = (
            truly_lit(measurement, metadata, run.design, first) for run in (wrong, other)
        )
        assert (true.positions_px != true_of_other.positions_px).any(axis=1).all()
        assert np.abs(true.probe - true_of_other.probe).max() > 1
        assert first.read_bytes() != second.read_bytes()


def test_all_doses_of_a_replicate_have_the_same_errors(tmp_path, monkeypatch, tiny_design_with):
    recorded = Recorded(monkeypatch)

    generated(tmp_path, tiny_design_with(*ALL, "doses=[1e3, 1e4]"))

    first, second = (call["true_light"] for call in recorded.calls)
    for split in SPLITS:
        np.testing.assert_array_equal(first.positions_px[split], second.positions_px[split])
        np.testing.assert_array_equal(first.brightness[split], second.brightness[split])
    np.testing.assert_array_equal(first.probe, second.probe)


def test_a_background_is_counted_by_every_pixel_at_every_dose_and_no_file_says_so(
    tmp_path, tiny_design_with
):
    """Against the run without it, which has the same object, probe and positions."""
    doses, background = (1e3, 1e5), 0.5
    plain, wrong = (
        generated(tmp_path / name, tiny_design_with(f"doses=[{doses[0]}, {doses[1]}]", *settings))
        for name, settings in {
            "plain": (),
            "wrong": (f"mismatch.background_counts={background}",),
        }.items()
    )
    for dose in doses:
        paths = [run.condition(dose, split="test").whole_file for run in (plain, wrong)]
        without, with_it = (load_dataset(path)[0] for path in paths)
        assert "background" not in with_it
        np.testing.assert_array_equal(without["probeGuess"], with_it["probeGuess"])
        side = with_it["probeGuess"].shape[-1]
        counts = [(one["diffraction"].astype(float) ** 2).sum(axis=(1, 2)) for one in
                  (without, with_it)]  # fmt: skip
        spread = np.sqrt((counts[0] + counts[1]).mean() / len(counts[0]))
        added = counts[1].mean() - counts[0].mean()
        assert added == pytest.approx(background * side**2, abs=5 * spread)

        condition = wrong.condition(dose, split="test")
        measurement, (_, metadata) = condition.measurement(), read_npz(condition.file)
        true = truly_lit(measurement, metadata, wrong.design, condition.file)
        assert measurement.background is None
        np.testing.assert_array_equal(true.background, np.full((side, side), background))
    assert wrong.design.mismatch.columns == {"mismatch_background_counts": background}


def test_the_light_of_a_wide_spectrum_has_the_dose_and_is_not_explained_by_one_wavelength(
    tmp_path, tiny_design_with
):
    plain, wrong = (
        generated(tmp_path / name, tiny_design_with(f"doses=[{DOSE}]", *settings))
        for name, settings in {"plain": (), "wrong": ("mismatch.bandwidth_percent=20",)}.items()
    )
    misfits = []
    for run in (plain, wrong):
        condition = run.condition(DOSE)
        measurement = condition.measurement()
        misfits.append(misfit_of(measurement, condition.truth()))
        photons = (measurement.amplitudes**2).sum(axis=(1, 2))
        assert photons.mean() == pytest.approx(DOSE, rel=0.1)
    np.testing.assert_array_equal(
        *(whole_files(run)["train"]["probeGuess"] for run in (plain, wrong))
    )
    assert abs(misfits[0]) < 5
    assert misfits[1] > 50


# --- What is true is known again to the comparison alone


def misfit_of(measurement: Measurement, truth: np.ndarray) -> float:
    """By how many standard deviations the counts lie farther off the model than its own draws.

    The model is the true object behind the probe and at the positions of the measurement.
    """
    given = (truth, measurement.probe, measurement.positions_px)
    expected = np.concatenate([part.numpy() for _, part in expected_in_parts(*given)])
    rng = np.random.default_rng(0)

    def deviance(amplitudes: np.ndarray) -> float:
        one = replace(measurement, amplitudes=amplitudes.astype(np.float32))
        return float(pattern_residuals(one, truth, measurement.probe).mean())

    draws = [deviance(np.sqrt(rng.poisson(expected.astype(float)))) for _ in range(20)]
    return float((deviance(measurement.amplitudes) - np.mean(draws)) / np.std(draws))


@pytest.mark.parametrize("view", ["baseline", "dense"])
@pytest.mark.parametrize("per", ["pattern", "area"])
def test_true_positions_and_probe_explain_the_counts_and_nominal_ones_do_not(
    per, view, tmp_path, tiny_design_with
):
    """Also the counts that a view has of its own at a dose per area."""
    dose = {"pattern": DOSE, "area": 2000.0}[per]
    design = tiny_design_with(f"doses=[{dose}]", f"dose_per={per}", *OF_LIGHT)
    condition = with_views(generated(tmp_path, design)).condition(dose, view)
    measurement, (_, metadata) = condition.measurement(), read_npz(condition.file)

    true = truly_lit(measurement, metadata, design, condition.file)

    assert abs(misfit_of(true, condition.truth())) < 5
    assert misfit_of(measurement, condition.truth()) > 50
    powers = [np.linalg.norm(one.probe) ** 2 for one in (true, measurement)]
    assert powers[0] / powers[1] == pytest.approx(metadata["mismatch"]["photon_ratio"], rel=1e-5)


def test_without_a_mismatch_a_measurement_is_lit_as_it_says(plain):
    condition = plain.condition(DOSE)
    measurement = condition.measurement()

    assert truly_lit(measurement, {}, plain.design, condition.file) is measurement
    assert abs(misfit_of(measurement, condition.truth())) < 5


def test_a_view_that_counts_anew_has_the_errors_of_all_positions(
    tmp_path, monkeypatch, tiny_design_with
):
    recorded = Recorded(monkeypatch)
    design = tiny_design_with(*ALL, "dose_per=area", "doses=[2000]")
    run = generated(tmp_path, design)
    whole = {split: call for call in recorded.calls for split in call["positions_px"]}

    overlap.choose_view(run.condition(2000.0, "dense"))

    for call in recorded.calls[2:]:
        (split,) = call["positions_px"]
        kept = run.condition(2000.0, "dense", split).measurement().scan_index
        place = np.searchsorted(whole_files(run)[split]["scan_index"], kept)
        light, of_all = call["true_light"], whole[split]["true_light"]
        np.testing.assert_array_equal(light.positions_px[split], of_all.positions_px[split][place])
        np.testing.assert_array_equal(light.brightness[split], of_all.brightness[split][place])
        assert len(place) < len(of_all.positions_px[split])
    assert len(recorded.calls) == 4


def test_a_base_probe_has_errors_of_its_own_size(tmp_path, base_file, tiny_design_with):
    path, _ = base_file()
    design = tiny_design_with(*OF_LIGHT, f"doses=[{DOSE}]", base=base_data(path))
    condition = create_run(tmp_path / "run", design, path).condition(DOSE)
    dataset.generate(condition)
    measurement, (_, metadata) = condition.measurement(), read_npz(condition.file)

    true = truly_lit(measurement, metadata, design, condition.file)

    assert abs(misfit_of(true, condition.truth())) < 5
    assert misfit_of(measurement, condition.truth()) > 50


def test_a_file_that_does_not_say_how_it_was_made_is_refused(wrong):
    condition = wrong.condition(DOSE)
    measurement = condition.measurement()

    spoilt = {"split_field_px": [[0, 0], [9, 9]], "photon_ratio": -1}
    for metadata in (
        {},
        {"mismatch": None},
        {"mismatch": {"photon_ratio": 1}},
        {"mismatch": spoilt},
    ):
        with pytest.raises(InputError, match="how the mismatch of the design was put in; generate"):
            truly_lit(measurement, metadata, wrong.design, condition.file)


def test_there_is_no_photon_limit_where_a_mismatch_leaves_a_scored_pixel_dark(plain, wrong):
    """Without a mismatch the same is a fault of the study."""
    condition = wrong.condition(DOSE)
    measurement, truth = condition.measurement(), condition.truth()
    crop, mask = condition.scored_pixels()
    one_place = np.repeat(measurement.positions_px[:1], len(measurement.positions_px), axis=0)
    dark = replace(measurement, positions_px=one_place)

    assert limit_of(dark, truth, crop, mask, wrong.design) is None
    with pytest.raises(ValueError, match="light is zero on"):
        limit_of(dark, truth, crop, mask, plain.design)


def test_without_a_photon_limit_the_errors_are_still_drawn_by_frequency(wrong):
    crop, mask = wrong.condition(DOSE).scored_pixels()
    error_rad = np.random.default_rng(0).normal(0, 0.3, mask.shape)

    arrays = limit_arrays(None, crop, mask)
    figure = phase_error_spectra(
        {"solver": ring_power(error_rad, mask)},
        arrays["spectrum_frequency"],
        limit=arrays["photon_limit_phase_spectrum_rad2"],
        signal=arrays["true_phase_spectrum_rad2"],
        title="",
    )

    (line,) = figure.axes[0].lines
    assert line.get_label() == "solver"
    assert 1 < line.get_xdata().max() <= np.sqrt(2), "up to the corner, in fractions of Nyquist"
    np.testing.assert_allclose(line.get_ydata()[5:].mean(), 0.09, rtol=0.1)


# --- The data contract


def test_files_with_any_mismatch_keep_the_contract_which_only_notes_it(tmp_path, tiny_design_with):
    settings = ("mismatch.position_error_px=4", "mismatch.aberration_error_percent=50")
    run = generated(tmp_path, tiny_design_with(*settings, f"doses=[{DOSE}]"))

    for split in SPLITS:
        report = validate(run.condition(DOSE, split=split).whole_file)

        assert report.serious == ()
        (note,) = report.violations
        assert "aberration_error_percent 50" in note.remedy


def test_a_probe_of_another_power_is_refused_unless_a_mismatch_is_stated(tmp_path, plain):
    arrays, metadata = read_npz(plain.condition(DOSE).whole_file)
    brighter = arrays | {"probeGuess": 2 * arrays["probeGuess"]}
    stated = {"mismatch": {"flux_jitter_percent": 90.0}}

    save_dataset(tmp_path / "refused.npz", brighter, metadata)
    save_dataset(tmp_path / "noted.npz", brighter, metadata | stated)

    assert [fault.key for fault in validate(tmp_path / "refused.npz").serious] == ["probeGuess"]
    noted = validate(tmp_path / "noted.npz")
    assert noted.serious == ()
    assert "flux_jitter_percent 90" in noted.violations[0].remedy


@pytest.mark.parametrize("stated", [[], "much", {"a_px": "x"}, {"a_px": 10**400}, {"a_px": -1}])
def test_a_mismatch_that_says_nothing_excuses_nothing(stated, tmp_path, plain):
    arrays, metadata = read_npz(plain.condition(DOSE).whole_file)
    brighter = arrays | {"probeGuess": 2 * arrays["probeGuess"]}

    save_dataset(tmp_path / "file.npz", brighter, metadata | {"mismatch": stated})

    assert [fault.key for fault in validate(tmp_path / "file.npz").serious] == ["probeGuess"]


# --- What it costs, and where it is said


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "position_error_px": (0.5, 1.5),
        "defocus_error_percent": (30, 100),
        "aberration_error_percent": (3, 10),
        "flux_jitter_percent": (5, 20),
    }.items(),
)
def test_quality_falls_with_each_mismatch_and_the_photon_limit_hardly_moves(
    name, values, tmp_path, tiny_design_with
):
    errors_rad, limits_rad = [], []
    for value in (0, *values):
        design = tiny_design_with("doses=[1e6]", f"mismatch.{name}={value}")
        condition = generated(tmp_path / str(value), design).condition(1e6)
        measurement, (_, metadata) = condition.measurement(), read_npz(condition.file)
        found = solve_measurement(measurement, SolverSettings(epochs=100))
        errors_rad.append(condition.score(found.object_)[0]["phase_mse_rad2"] ** 0.5)
        lit = truly_lit(measurement, metadata, design, condition.file)
        crop, mask = condition.scored_pixels()
        limits_rad.append(limit_of(lit, condition.truth(), crop, mask, design).phase_rms_rad)

    assert errors_rad[0] < 1.3 * limits_rad[0]
    assert 2 * errors_rad[0] < errors_rad[1]
    assert 2 * errors_rad[1] < errors_rad[2]
    assert limits_rad == pytest.approx([limits_rad[0]] * 3, rel=0.15)


@pytest.fixture(scope="module")
def compared(tmp_path_factory, tiny_design_with):
    settings = (
        "views=[{name: baseline, gridsize: 1, target_overlap: null}]",
        "training=null",
        "thinned=null",
        "iterative.algorithms=[solver]",
        "iterative.denoised=false",
        f"doses=[{DOSE}]",
    )
    runs = {}
    for name, errors in {"plain": (), "wrong": ALL}.items():
        design = tiny_design_with(*settings, *errors)
        run = generated(tmp_path_factory.mktemp(name), design)
        (run.folder / "design.json").write_text(design.model_dump_json())
        condition = run.condition(DOSE)
        reconstruct(condition)
        runs[name] = run, compare(condition), summarize(run)
    return runs


def test_rows_say_how_large_the_mismatch_is_where_there_is_one(compared):
    for _, *tables in (compared["plain"],):
        assert not [name for rows in tables for name in rows[0] if name.startswith("mismatch")]
    for rows in compared["wrong"][1:]:
        assert COLUMNS.items() <= rows[0].items()


def test_fresh_counts_and_limit_are_of_the_true_light_and_scores_of_the_true_object(compared):
    """The true object explains the fresh counts, so none explains them better."""
    ((plain, _), (wrong, _)) = ((one[1][0], one[0]) for one in compared.values())

    ratio = wrong["photon_limit_phase_rad"] / plain["photon_limit_phase_rad"]
    assert ratio != 1
    assert ratio == pytest.approx(1, rel=0.15)
    assert wrong["held_out_excess_nats"] > 10 * plain["held_out_excess_nats"] > 0
    assert wrong["phase_mse_rad2"] > 4 * plain["phase_mse_rad2"]


def test_the_summary_and_its_figures_say_that_the_arms_did_not_know(compared):
    said = "position error 0.8 px, defocus error 20 %, aberrations 6 % of a wave, flux jitter 5 %"
    for name, count in {"plain": 0, "wrong": 1}.items():
        run, rows, table = compared[name]
        folder = run.root("summary")
        summary = read_json(folder / "summary.json")
        text = (folder / "summary.md").read_text(encoding="utf-8")
        figures = [
            comparison_figure(_aligned(run), rows, run.design),
            *summary_figures(run.root("compare"), rows, table, []).values(),
        ]
        titles = [_text_of(figure) for figure in figures]

        assert origin_text(summary["origin"]).count(said) == count
        assert text.count(f"a mismatch unknown to every arm: {said}.") == count
        assert len([note for note in notes_of(table) if said in note]) == count
        assert len([title for title in titles if "with a mismatch" in title]) >= 3 * count
        assert count or not [one for one in [text, *titles] if re.search("mismatch", one)]


def test_a_title_says_how_large_one_mismatch_is(compared):
    run, rows, _ = compared["plain"]
    one = [row | {"mismatch_position_px": 1.5} for row in rows]

    title = _text_of(comparison_figure(_aligned(run), one, run.design))

    assert "photons per pattern, replicate 0, position error 1.5 px" in title


def _aligned(run: Run) -> dict[str, np.ndarray]:
    return read_npz(run.condition(DOSE).folder("compare") / "aligned.npz")[0]


def _text_of(figure) -> str:
    texts = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    return " ".join(" ".join(texts).split())
