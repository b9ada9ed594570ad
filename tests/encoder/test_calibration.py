from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec_pkg.encoder.calibration import Calibration, fit_calibration
from rec_pkg.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

DIMS = 6
GROUPS = ("zh", "en")


def unit_vectors(seed: int, count: int = 60) -> NDArray[np.float32]:
    """Vectors with a large common part, some directions wider than others."""
    random = np.random.default_rng(seed)
    spread = random.normal(size=(count, DIMS)) * np.geomspace(1, 0.1, DIMS)
    return unit(spread + 3 * random.normal(size=DIMS))


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def moved(calibration: Calibration, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """What the map gives before it brings vectors to unit length."""
    return np.asarray((vectors - calibration.mean) @ calibration.matrix, np.float64)


seeds = st.integers(0, 2**32 - 1)
ridges = st.floats(1e-3, 1e3)


@given(seeds, ridges)
def test_calibrated_vectors_are_float32_of_unit_length(seed: int, ridge: float) -> None:
    vectors = unit_vectors(seed)
    calibrated = fit_calibration(vectors, ridge).apply(vectors)
    assert calibrated.dtype == np.float32
    assert np.allclose(np.linalg.norm(calibrated, axis=1), 1, atol=1e-5)


@given(seeds)
def test_a_large_ridge_is_mean_removal_alone(seed: int) -> None:
    vectors = unit_vectors(seed)
    centred = unit(vectors - vectors.mean(axis=0))
    assert np.allclose(fit_calibration(vectors, 1e9).apply(vectors), centred, atol=1e-3)


@given(seeds)
def test_a_small_ridge_makes_all_directions_equally_wide(seed: int) -> None:
    vectors = unit_vectors(seed)
    covariance = np.cov(moved(fit_calibration(vectors, 1e-7), vectors), rowvar=False, bias=True)
    level = np.trace(covariance) / DIMS
    assert np.allclose(covariance, level * np.eye(DIMS), atol=0.02 * level)


@given(seeds, ridges)
def test_gains_follow_the_formula(seed: int, ridge: float) -> None:
    vectors = unit_vectors(seed)
    widths = np.linalg.eigvalsh(np.cov(vectors.astype(float), rowvar=False, bias=True))
    level = widths.mean()
    expected = np.sqrt((1 + ridge) * level / (widths + ridge * level))
    gains = np.linalg.eigvalsh(fit_calibration(vectors, ridge).matrix.astype(float))
    assert np.allclose(sorted(gains), sorted(expected), rtol=1e-3)


@given(seeds, ridges)
def test_groups_have_the_same_mean_afterwards(seed: int, ridge: float) -> None:
    vectors = unit_vectors(seed)
    groups = [GROUPS[number % 2] for number in range(len(vectors))]
    vectors[1::2] += np.linspace(-0.5, 0.5, DIMS, dtype=np.float32)
    after = moved(fit_calibration(vectors, ridge, groups), vectors)
    assert np.allclose(after[0::2].mean(axis=0), after[1::2].mean(axis=0), atol=1e-4)


@given(seeds, ridges)
def test_the_order_of_the_sample_does_not_matter(seed: int, ridge: float) -> None:
    vectors = unit_vectors(seed)
    one, other = fit_calibration(vectors, ridge), fit_calibration(vectors[::-1], ridge)
    assert np.allclose(one.apply(vectors), other.apply(vectors), atol=1e-3)


def test_a_calibrated_vector_does_not_depend_on_the_others_of_its_batch() -> None:
    vectors = unit_vectors(3)
    calibration = fit_calibration(vectors, 0.1)
    together = calibration.apply(vectors)
    for size in (1, 3, 4):
        alone = [calibration.apply(vectors[n : n + size]) for n in range(0, len(vectors), size)]
        assert np.array_equal(np.concatenate(alone), together)


def test_the_mean_itself_stays_what_it_was() -> None:
    vectors = unit_vectors(1)
    calibration = fit_calibration(vectors, 1)
    mean = calibration.mean[np.newaxis]
    assert np.array_equal(calibration.apply(mean), mean)


@given(seeds)
def test_what_went_in_is_found_again_from_what_a_halfvec_keeps(seed: int) -> None:
    vectors = unit_vectors(seed)
    calibration = fit_calibration(vectors, 0.1)
    kept = calibration.apply(vectors).astype(np.float16).astype(np.float32)
    back = calibration.invert(kept)
    assert back.dtype == np.float32
    assert np.allclose(np.linalg.norm(back, axis=1), 1, atol=1e-5)
    assert ((back * vectors).sum(axis=1) >= 0.9999).all()


def test_a_calibration_is_read_back_from_its_bytes_bit_for_bit() -> None:
    vectors = unit_vectors(1)
    calibration = fit_calibration(vectors, 1)
    stored = calibration.to_bytes()
    assert len(stored) == 4 * DIMS * (DIMS + 1)
    assert np.frombuffer(stored[: 4 * DIMS], "<f4").tolist() == calibration.mean.tolist()
    read = Calibration.from_bytes(stored, DIMS)
    assert np.array_equal(read.apply(vectors), calibration.apply(vectors))


def test_a_saved_calibration_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    vectors = unit_vectors(1)
    calibration = fit_calibration(vectors, 1)
    calibration.save(tmp_path / "c.npz")
    read = Calibration.load(tmp_path / "c.npz")
    assert np.array_equal(read.apply(vectors), calibration.apply(vectors))
    assert [path.name for path in tmp_path.iterdir()] == ["c.npz"]


@pytest.mark.parametrize(
    ("vectors", "ridge"),
    [
        (unit_vectors(1), 0.0),
        (unit_vectors(1), float("nan")),
        (np.empty((0, DIMS), np.float32), 1.0),
        (np.ones((5, DIMS), np.float32), 1.0),
    ],
    ids=["ridge 0", "ridge nan", "no vectors", "equal vectors"],
)
def test_nothing_is_fitted_on_nothing(vectors: NDArray[np.float32], ridge: float) -> None:
    with pytest.raises(BadInput):
        fit_calibration(vectors, ridge)
