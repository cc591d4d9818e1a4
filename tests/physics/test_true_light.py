"""What differs between truth and files is as large as asked, and no photon is lost by it."""

import numpy as np
import pytest

from study_lib.errors import InputError
from study_lib.physics.probe import aberrated_probe, pupil_radius_per_px, zone_plate_probe
from study_lib.physics.simulation import TrueLight, frame_brightness, moved_positions, simulate

SIDE = 32
APERTURE = 0.2
DOSE = 2e4


def zone_plate(defocus_radius_px: float = 6.0, stop_ratio: float = 0.4) -> np.ndarray:
    return zone_plate_probe(
        side_px=SIDE,
        aperture_per_px=APERTURE,
        stop_ratio=stop_ratio,
        defocus_radius_px=defocus_radius_px,
    )


def with_errors(probe: np.ndarray, *, seed: int = 0, **errors: float) -> np.ndarray:
    given = {"aperture_per_px": APERTURE, "defocus_px": 0.0, "aberration_waves": 0.0} | errors
    return aberrated_probe(probe, **given, random=np.random.default_rng(seed))


def pupil_of(probe: np.ndarray) -> np.ndarray:
    return np.fft.fft2(np.fft.ifftshift(probe), norm="ortho")


# --- Positions


def errors_of(places: np.ndarray, error_px: float, seed: int = 0, **given) -> np.ndarray:
    index = given.get("scan_index", np.arange(len(places)))
    field = given.get("field_px", np.stack([places.min(axis=0), places.max(axis=0)]))
    random = np.random.default_rng(seed)
    moved = moved_positions(
        places, error_px=error_px, scan_index=index, field_px=field, random=random
    )
    assert (moved >= field[0]).all()
    assert (moved <= field[1]).all()
    return moved - places


@pytest.mark.parametrize("error_px", [0.3, 1.5, 8.0])
def test_position_errors_have_the_asked_size_along_each_axis(rng, error_px):
    places = rng.uniform(0, 100, (20_000, 2))

    errors = errors_of(places, error_px)

    rms = np.sqrt((errors**2).mean(axis=0))
    assert rms == pytest.approx(error_px, rel=0.03)
    assert abs(np.corrcoef(errors.T)[0, 1]) < 0.03
    inner = ((places > 4 * error_px) & (places < 100 - 4 * error_px)).all(axis=1)
    assert np.abs(errors[inner].mean(axis=0)).max() < 5 * error_px / np.sqrt(inner.sum())


def test_an_error_at_the_edge_of_the_field_points_inward_with_its_size_kept():
    edge = np.tile([[10.0, 50.0]], (20_000, 1))
    field = np.array([[10.0, 0.0], [100.0, 100.0]])

    errors = errors_of(edge, 2.0, field_px=field)

    assert (errors[:, 0] >= 0).all()
    assert np.sqrt((errors**2).mean(axis=0)) == pytest.approx(2.0, rel=0.03)


def test_a_field_narrower_than_the_errors_is_not_left(rng):
    errors_of(rng.uniform(0, 1, (500, 2)), 8.0)


def test_a_position_has_its_own_error_whichever_part_of_the_scan_is_asked_for(rng):
    places = rng.uniform(0, 100, (300, 2))
    field = np.array([[0.0, 0.0], [100.0, 100.0]])
    kept = np.array([3, 4, 77, 120])

    whole = errors_of(places, 1.5, field_px=field)
    part = errors_of(places[kept], 1.5, scan_index=kept, field_px=field)

    np.testing.assert_array_equal(part, whole[kept])
    assert (errors_of(places, 1.5, seed=1, field_px=field) != whole).all()


# --- Brightness


@pytest.mark.parametrize("jitter", [0.03, 0.2, 1.0])
def test_the_light_of_frames_has_mean_1_and_the_asked_deviation(jitter):
    light = frame_brightness(np.arange(400_000), jitter=jitter, random=np.random.default_rng(0))

    assert light.mean() == pytest.approx(1, abs=5 * jitter / np.sqrt(len(light)))
    assert light.std() == pytest.approx(jitter, rel=0.05)
    assert light.min() > 0


# --- Counts


@pytest.fixture
def glass() -> dict[str, object]:
    """A scan over clear glass: every frame has the photons of its probe."""
    rng = np.random.default_rng(1)
    places = {split: rng.uniform(16, 60, (1500, 2)) for split in ("train", "test")}
    return {
        "object_": np.ones((80, 80), np.complex64),
        "probe": zone_plate(),
        "positions_px": places,
        "dose": DOSE,
        "dark_counts": 0.0,
        "saturation_counts": None,
        "bad_pixels": None,
    }


def counted(scan: dict[str, object], light: TrueLight | None = None, seed: int = 0):
    random = {split: np.random.default_rng([seed, place]) for place, split in enumerate(PLACES)}
    return simulate(**scan, random=random, true_light=light)


PLACES = ("train", "test")


def photons_of(simulated) -> np.ndarray:
    both = np.concatenate([simulated.amplitudes[split] for split in PLACES])
    return np.round(both.astype(float) ** 2).sum(axis=(1, 2))


@pytest.mark.parametrize("jitter", [0.02, 0.1])
def test_frames_scatter_by_the_asked_jitter_beyond_poisson_at_the_same_mean(glass, jitter):
    index = np.arange(1500)
    brightness = {
        split: frame_brightness(index + start, jitter=jitter, random=np.random.default_rng(2))
        for split, start in zip(PLACES, (0, 1500), strict=True)
    }

    simulated = counted(glass, TrueLight(glass["probe"], glass["positions_px"], brightness))

    photons = photons_of(simulated)
    assert photons.mean() == pytest.approx(DOSE, abs=5 * np.sqrt(DOSE / len(photons)))
    beyond = photons.var() / photons.mean() ** 2 - 1 / photons.mean()
    assert np.sqrt(beyond) == pytest.approx(jitter, rel=0.12)
    for split in PLACES:
        assert simulated.photons_expected[split] == pytest.approx(DOSE, rel=1e-5)


def test_without_jitter_frames_scatter_as_poisson_numbers_do(glass):
    photons = photons_of(counted(glass))

    assert photons.var() / photons.mean() == pytest.approx(1, abs=5 * np.sqrt(2 / len(photons)))


def test_moved_light_through_an_aberrated_lens_loses_no_photon(glass):
    moved = {
        split: np.clip(places + 3.3, 16, 60) for split, places in glass["positions_px"].items()
    }
    probe = with_errors(glass["probe"], defocus_px=2.0, aberration_waves=0.1)

    simulated = counted(glass, TrueLight(probe, moved, {}))

    assert simulated.photon_ratio == pytest.approx(1, rel=1e-6)
    for split in PLACES:
        assert simulated.photons_expected[split] == pytest.approx(DOSE, rel=1e-5)
    photons = photons_of(simulated)
    assert photons.mean() == pytest.approx(DOSE, abs=5 * np.sqrt(DOSE / len(photons)))


@pytest.fixture
def absorbing(glass, rng) -> dict[str, object]:
    object_ = rng.uniform(0.2, 1, (80, 80)) * np.exp(1j * rng.uniform(-1, 1, (80, 80)))
    return glass | {"object_": object_.astype(np.complex64)}


def test_a_true_light_that_is_the_given_one_changes_no_bit(absorbing):
    light = TrueLight(absorbing["probe"], absorbing["positions_px"], {})

    plain, same = counted(absorbing), counted(absorbing, light)

    assert same.photon_ratio == 1
    assert plain.photons_expected == same.photons_expected
    np.testing.assert_array_equal(plain.probe, same.probe)
    for split in PLACES:
        np.testing.assert_array_equal(plain.amplitudes[split], same.amplitudes[split])


def test_the_probe_handed_on_is_that_of_a_scan_without_errors_and_the_dose_that_of_the_true_one(
    absorbing,
):
    """Counts are those of a scan with the true probe and positions, known to all."""
    moved = {
        split: np.clip(places + 2.7, 16, 60) for split, places in absorbing["positions_px"].items()
    }
    probe = with_errors(absorbing["probe"], defocus_px=3.0, aberration_waves=0.2)

    wrong = counted(absorbing, TrueLight(probe, moved, {}))

    np.testing.assert_array_equal(wrong.probe, counted(absorbing).probe)
    assert abs(wrong.photon_ratio - 1) > 1e-4
    true = counted(absorbing | {"probe": probe, "positions_px": moved})
    bright, given = (np.linalg.norm(one.probe) ** 2 for one in (true, wrong))
    assert bright == pytest.approx(given * wrong.photon_ratio, rel=1e-6)
    for split in PLACES:
        assert true.photons_expected[split] == wrong.photons_expected[split]
        np.testing.assert_array_equal(true.amplitudes[split], wrong.amplitudes[split])


# --- The probe


@pytest.mark.parametrize("stop_ratio", [0.0, 0.4])
@pytest.mark.parametrize("percent", [5.0, 100.0])
def test_a_defocus_error_is_the_probe_of_a_lens_further_out_of_focus(stop_ratio, percent):
    found = with_errors(zone_plate(6.0, stop_ratio), defocus_px=6.0 * percent / 100)

    wanted = zone_plate(6.0 * (1 + percent / 100), stop_ratio)
    assert np.abs(found - wanted).max() < 1e-12


@pytest.mark.parametrize("waves", [0.02, 0.3])
def test_aberrations_turn_phases_by_the_asked_part_of_a_wave_and_leave_the_pupil_bright(waves):
    pupil = pupil_of(zone_plate())
    turned = pupil_of(with_errors(zone_plate(), aberration_waves=waves))
    weak = pupil_of(with_errors(zone_plate(), aberration_waves=waves / 100))

    np.testing.assert_allclose(np.abs(turned), np.abs(pupil), atol=1e-12)
    # Phases of a hundredth do not wrap; the mixture is the same.
    phase = 100 * np.angle(weak * pupil.conj())
    power = np.abs(pupil) ** 2
    assert np.sqrt(np.average(phase**2, weights=power)) == pytest.approx(2 * np.pi * waves)
    np.testing.assert_allclose(turned, pupil * np.exp(1j * phase), atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_aberrations_hold_no_tilt_and_no_defocus_and_are_others_for_another_draw(seed):
    pupil = pupil_of(zone_plate())
    turned = pupil_of(with_errors(zone_plate(), aberration_waves=0.05, seed=seed))
    power = np.abs(pupil) ** 2
    phase = np.angle(turned * pupil.conj())
    y, x = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE), indexing="ij")

    for shape in (np.ones_like(x), x, y, x**2 + y**2):
        assert abs(np.average(phase * shape, weights=power)) < 1e-9

    other = pupil_of(with_errors(zone_plate(), aberration_waves=0.05, seed=seed + 1))
    assert np.abs(other - turned).max() > 0.01 * np.abs(pupil).max()


def test_any_probe_keeps_its_power_and_its_far_field(probe):
    wave = probe.numpy()
    lens = {"aperture_per_px": pupil_radius_per_px(wave)}

    found = with_errors(wave, defocus_px=1.5, aberration_waves=0.1, **lens)

    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(wave))
    np.testing.assert_allclose(np.abs(pupil_of(found)), np.abs(pupil_of(wave)), atol=1e-9)
    assert np.abs(found - wave).max() > 0.05 * np.abs(wave).max()


@pytest.mark.parametrize("stop_ratio", [0.0, 0.4])
def test_the_radius_of_a_pupil_is_found_from_its_probe(stop_ratio):
    found = pupil_radius_per_px(zone_plate(stop_ratio=stop_ratio))

    assert found == pytest.approx(APERTURE, abs=1 / SIDE)


def test_a_plane_wave_has_no_pupil_to_be_aberrated():
    with pytest.raises(InputError, match="too small for aberrations; set"):
        with_errors(np.ones((SIDE, SIDE), complex), aberration_waves=0.1)
