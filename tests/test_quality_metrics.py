"""The numbers that accuracy rests on: properties that hold for any arrays, and what must be a fault."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bench.fidelity import similarity, thresholds

VALUES = st.floats(-1e6, 1e6, width=32)
SHAPES = hnp.array_shapes(max_dims=4, max_side=5)
ARRAYS = hnp.arrays(np.float32, SHAPES, elements=VALUES).filter(lambda a: np.abs(a).max() > 1e-6)


@given(ARRAYS)
def test_an_array_is_no_distance_from_itself(values):
    found = similarity.distance(values, values)
    assert (found.rel_l2, found.max_abs, found.equal, found.fault) == (0.0, 0.0, True, None)
    assert found.cosine == pytest.approx(1, abs=1e-12)


@given(ARRAYS, st.floats(0.125, 8))
def test_scaling_the_subject_gives_the_scale_as_relative_l2(values, factor):
    values = values.astype(np.float64)
    found = similarity.distance(values * factor, values)
    assert found.rel_l2 == pytest.approx(abs(factor - 1), rel=1e-9, abs=1e-12)
    assert found.cosine == pytest.approx(1, abs=1e-9)


@given(ARRAYS, st.floats(1e-30, 1e30))
def test_relative_l2_and_cosine_do_not_depend_on_the_unit(values, unit):
    values = values.astype(np.float64)
    other = values + np.linspace(0, 1, values.size).reshape(values.shape)
    plain, scaled = similarity.distance(other, values), similarity.distance(other * unit, values * unit)
    assert scaled.rel_l2 == pytest.approx(plain.rel_l2, rel=1e-9)
    assert scaled.cosine == pytest.approx(plain.cosine, abs=1e-9)


@given(st.data())
def test_the_worst_element_is_where_it_is(data):
    values = data.draw(ARRAYS).astype(np.float64)
    place = tuple(data.draw(st.integers(0, side - 1)) for side in values.shape)
    spoilt = values.copy()
    spoilt[place] += 4e6
    found = similarity.distance(spoilt, values)
    assert found.worst_at == place
    assert found.max_abs == pytest.approx(4e6)


@given(ARRAYS, st.sampled_from([math.nan, math.inf, -math.inf]), st.booleans(), st.data())
def test_what_is_not_finite_is_a_fault_that_says_whose_and_where(values, bad, in_reference, data):
    place = tuple(data.draw(st.integers(0, side - 1)) for side in values.shape)
    spoilt = values.copy()
    spoilt[place] = bad
    found = similarity.distance(values, spoilt) if in_reference else similarity.distance(spoilt, values)
    assert found.rel_l2 is found.cosine is found.max_abs is None
    assert not found.equal
    assert ("NaN" if math.isnan(bad) else "Inf") in found.fault
    assert ("reference" if in_reference else "native") in found.fault
    assert str(list(place)) in found.fault


@pytest.mark.parametrize(
    ("subject", "reference", "says"),
    [
        ((2, 3), (3, 2), "shapes differ: native [2, 3], reference [3, 2]"),
        ((6,), (2, 3), "shapes differ"),
        ((0,), (0,), "no values"),
    ],
)
def test_forms_that_cannot_be_compared_are_faults(subject, reference, says):
    assert says in similarity.distance(np.ones(subject), np.ones(reference)).fault


def test_a_batch_axis_more_or_less_is_the_same_form():
    assert similarity.distance(np.ones((1, 4, 1, 2)), np.ones((4, 2))).equal


def test_a_reference_of_zeros_is_a_fault_and_not_a_division():
    assert "zero" in similarity.distance(np.ones(3), np.zeros(3)).fault


def test_the_sum_is_in_float64():
    """Bit-equal float32 arrays of this size have a float32 cosine of about 0.99999."""
    values = np.random.default_rng(1).standard_normal(196_608, dtype=np.float32)
    assert abs(similarity.distance(values, values.copy()).cosine - 1) < 1e-12


PICTURES = hnp.arrays(np.uint8, (2, 9, 8, 3))


@given(PICTURES)
def test_a_picture_is_like_itself(picture):
    found = similarity.compare(picture, picture)
    assert found.identical
    assert found.psnr_db is None
    assert found.ssim == pytest.approx(1)
    assert found.max_levels == 0


@given(PICTURES, PICTURES)
def test_frames_have_the_likeness_of_the_whole_and_of_the_worst(one, other):
    from skimage import metrics as oracle

    both = similarity.compare(one, other)
    single = [similarity.compare(one[i : i + 1], other[i : i + 1]) for i in range(2)]
    assert both.worst_ssim == min(found.ssim for found in single)
    assert both.ssim == pytest.approx(np.mean([found.ssim for found in single]))
    assert both.max_levels == max(found.max_levels for found in single)
    if not both.identical:
        assert both.psnr_db == pytest.approx(oracle.peak_signal_noise_ratio(one, other, data_range=255))
        assert both.worst_psnr_db == single[both.worst_frame - 1].psnr_db
        assert both.worst_psnr_db <= both.psnr_db


def test_one_level_everywhere_is_48_decibels():
    """20 log10(255): PSNR's own definition."""
    picture = np.full((1, 16, 16, 3), 100, dtype=np.uint8)
    assert similarity.compare(picture + np.uint8(1), picture).psnr_db == pytest.approx(48.1308, abs=1e-4)


def test_pictures_of_other_sizes_or_kinds_are_faults():
    picture = np.zeros((1, 16, 16, 3), np.uint8)
    assert "sizes differ" in similarity.compare(picture[:, :8], picture).fault
    assert "not 8-bit pictures" in similarity.compare(picture.astype(float), picture.astype(float)).fault
    assert similarity.compare(picture[:, :4], picture[:, :4]).ssim is None


def found(**changes):
    same = {"psnr_db": 30.0, "ssim": 0.96, "worst_psnr_db": 30.0, "worst_ssim": 0.96, "frames": 1, "max_levels": 9}
    return similarity.Similarity(**(same | changes))


@pytest.mark.parametrize(
    ("changes", "video", "says"),
    [
        ({}, False, None),
        ({"identical": True, "psnr_db": None, "worst_psnr_db": None}, False, None),
        ({"ssim": 0.949}, False, "SSIM 0.9490, at least 0.95 required"),
        ({"psnr_db": 27.9}, False, "PSNR 27.9 dB, at least 28 dB required"),
        ({"psnr_db": 27.9, "worst_psnr_db": 24.0, "worst_ssim": 0.92, "frames": 9}, True, None),
        ({"psnr_db": 23.9, "frames": 9}, True, "PSNR 23.9 dB over all frames, at least 24 dB required"),
        ({"worst_psnr_db": 23.9, "frames": 9}, True, "PSNR 23.9 dB in the worst frame, at least 24 dB required"),
        ({"worst_ssim": 0.91, "frames": 9}, True, "SSIM 0.9100 in the worst frame, at least 0.92 required"),
        ({"ssim": None, "worst_ssim": None}, False, "too small for an SSIM"),
        ({"fault": "frames differ"}, True, "frames differ"),
    ],
)
def test_high_is_upstreams_rule_for_the_whole_and_the_worst_frame(changes, video, says):
    missed = thresholds.HIGH.missed(found(**changes), video=video)
    assert missed is None if says is None else says in missed


def test_lossless_wants_every_pixel():
    assert thresholds.LOSSLESS.missed(found(identical=True), video=True) is None
    assert "by up to 9 of 255 levels" in thresholds.LOSSLESS.missed(found(), video=False)
    assert thresholds.LOSSLESS.missed(similarity.Similarity(fault="gone"), video=False) == "gone"
