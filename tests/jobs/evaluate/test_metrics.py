import math

import numpy as np
import pytest

from helios_jobs.evaluate.metrics import (
    diversity,
    estimate,
    frame_statistics,
    frechet,
    identity_score,
    lip_sync,
    motion_energy,
    pearson,
    psnr,
)

RNG = np.random.default_rng(7)
CURVES = RNG.random((40, 17)).astype(np.float32)


def _unit(
    vectors: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def _frames(seed: int, count: int = 24) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 255, (count, 9, 32, 32, 3)).astype(np.uint8)


def test_pearson_agrees_with_numpy() -> None:
    """Correlation along the last axis equals numpy's, 1 for a scaled copy, 0 for a constant."""
    a, b = CURVES[0], CURVES[1]
    assert pearson(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert pearson(a, 3 * a + 2) == pytest.approx(1)
    assert pearson(a, np.ones_like(a)) == 0


def test_perfect_lips_score_one_and_shuffled_about_zero() -> None:
    """A mouth that is its driving curve has correlation 1 and none with other clips' curves."""
    sync = lip_sync(CURVES, CURVES)
    assert sync.own.value == pytest.approx(1)
    assert abs(sync.shuffled.value) < 0.06
    assert sync.own.n == 40


def test_clips_without_speech_are_left_out_and_counted() -> None:
    """A constant driving curve cannot be judged: it lowers the coverage, not the score."""
    driving = CURVES.copy()
    driving[:10] = 0.4
    sync = lip_sync(CURVES, driving)
    assert sync.coverage == 0.75
    assert sync.own.value == pytest.approx(1)
    assert sync.own.n == 30


def test_the_same_people_are_found_and_strangers_are_not() -> None:
    """Equal embeddings give retrieval and similarity 1; independent ones give chance in groups of 32."""
    people = _unit(RNG.normal(size=(96, 48)).astype(np.float32))
    same = identity_score(people, people)
    assert same.similarity.value == pytest.approx(1)
    assert (same.retrieval.value, same.gallery) == (1, 32)
    others = identity_score(_unit(RNG.normal(size=(96, 48)).astype(np.float32)), people)
    assert others.retrieval.value < 0.15
    assert abs(others.similarity.value) < 0.1


def test_few_queries_are_looked_for_among_all() -> None:
    """Five generated clips against a gallery of 40: found among 40, five values."""
    people = _unit(RNG.normal(size=(40, 48)).astype(np.float32))
    score = identity_score(people[:5], people)
    assert (score.retrieval.value, score.retrieval.n, score.gallery) == (1, 5, 40)


def test_frechet_is_zero_on_itself_and_grows_with_damage() -> None:
    """The distance of a set to itself is 0, to an equally distributed set small, to a dulled one large."""
    real = frame_statistics(_frames(1))
    assert frechet(real, real) == pytest.approx(0, abs=1e-6)
    near = frechet(frame_statistics(_frames(2)), real)
    far = frechet(frame_statistics((_frames(2) // 2).astype(np.uint8)), real)
    assert near < far / 10


def test_frechet_of_shifted_gaussians_is_the_squared_shift() -> None:
    """A shift of one standard deviation along one independent feature costs 1 (known answer)."""
    base = RNG.normal(size=(40_000, 6)).astype(np.float32)
    moved = base.copy()
    moved[:, 0] += base[:, 0].std()
    assert frechet(moved, base, components=6) == pytest.approx(1, rel=0.02)


def test_still_pictures_have_no_motion_and_equal_clips_no_diversity() -> None:
    """Motion energy of a still is 0, of a unit flicker 1; identical embeddings have diversity 0."""
    still = np.full((2, 5, 32, 32, 3), 7, np.uint8)
    flicker = still.copy()
    flicker[:, 1::2] += 1
    np.testing.assert_allclose(motion_energy(still), 0)
    np.testing.assert_allclose(motion_energy(flicker), 1)
    assert diversity(np.ones((4, 1), np.float32)) == pytest.approx(0)


def test_psnr_has_its_textbook_value() -> None:
    """An error of one grey level everywhere is 48.13 dB."""
    first = np.full((1, 2, 32, 32, 3), 10, np.uint8)
    assert psnr(first, first + 1)[0] == pytest.approx(48.1308, abs=1e-3)


def test_an_estimate_knows_its_error() -> None:
    """Mean, standard error of the mean and n; one value has no error."""
    figure = estimate([1.0, 2.0, 3.0])
    assert (figure.value, figure.n) == (2.0, 3)
    assert figure.error == pytest.approx(1 / math.sqrt(3))
    assert math.isnan(estimate([1.0]).error)
