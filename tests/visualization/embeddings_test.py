# SPDX-License-Identifier: Apache-2.0
"""Keys on known axes must come back as those; pictures are checked by their colours.

Shapes: M heads, T frames, t h w cells, D size of a key.
"""

import numpy as np
import pytest

from object_detection_ext.visualization import embeddings

_GRID = (2, 3, 4)


def _points_on_axes(spread=(5.0, 3.0, 1.0), size=7):
    """Keys [t, h, w, D] that differ along three known axes: (keys, places [t, h, w, 3], axes)."""
    generator = np.random.default_rng(0)
    axes = np.linalg.qr(generator.normal(size=[size, 3]))[0].T  # [3, D], at right angles
    places = generator.normal(size=[24, 3])
    places = np.linalg.qr(places - places.mean(axis=0))[0] * spread  # uncorrelated, mean 0
    keys = places @ axes + generator.normal(size=size)
    return keys.reshape(*_GRID, size), places.reshape(*_GRID, 3), axes


def test_three_known_axes_are_recovered():
    keys, places, axes = _points_on_axes()
    components = embeddings.principal_components(keys)
    for number in range(3):
        # Up to the sign: the axis' largest coefficient is to be positive.
        sign = np.sign(axes[number, np.argmax(np.abs(axes[number]))])
        np.testing.assert_allclose(
            components.values[..., number], sign * places[..., number], atol=1e-9
        )
    np.testing.assert_allclose(components.variance, np.array([25, 9, 1]) / 35)


def test_signs_do_not_depend_on_what_the_library_returns(monkeypatch):
    keys, _, _ = _points_on_axes()
    expected = embeddings.principal_components(keys).values
    svd = np.linalg.svd

    def flipped(*args, **kwargs):
        left, lengths, right = svd(*args, **kwargs)
        return -left, lengths, -right

    monkeypatch.setattr(np.linalg, "svd", flipped)
    np.testing.assert_allclose(embeddings.principal_components(keys).values, expected)


def test_mirrored_clips_have_mirrored_colors():
    keys, _, _ = _points_on_axes()
    expected = embeddings.colors(embeddings.principal_components(keys).values)
    for axis in (0, 2):
        mirrored = embeddings.principal_components(np.flip(keys, axis)).values
        np.testing.assert_allclose(embeddings.colors(mirrored), np.flip(expected, axis), atol=1e-9)


def test_scale_and_shift_of_the_keys_change_no_color():
    keys, _, _ = _points_on_axes()
    expected = embeddings.colors(embeddings.principal_components(keys).values)
    moved = embeddings.principal_components(1e-3 * keys + 7.0).values
    np.testing.assert_allclose(embeddings.colors(moved), expected, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2])
def test_short_keys_leave_colors_out(size):
    keys = np.random.default_rng(0).normal(size=[*_GRID, size])
    components = embeddings.principal_components(keys)
    assert np.all(components.variance[:size] > 0) and np.all(components.variance[size:] == 0)
    colors = embeddings.colors(components.values)
    assert np.all(colors[..., size:] == 0.5)
    assert all(np.ptp(colors[..., number]) == 1 for number in range(size))


def test_constant_keys_are_gray():
    # Not representable exactly, so that sums round.
    keys = np.full([*_GRID, 5], 0.1, np.float32) * np.arange(5, dtype=np.float32)
    components = embeddings.principal_components(keys)
    np.testing.assert_array_equal(components.variance, 0)
    np.testing.assert_array_equal(embeddings.colors(components.values), 0.5)
    assert np.all(embeddings.principal_components(np.zeros([*_GRID, 5])).values == 0)


def test_one_outlier_does_not_take_the_scale():
    values = np.zeros([10, 10, 10, 3])
    values[..., 0] = np.linspace(0, 1, 1000).reshape(10, 10, 10)
    values[0, 0, 0, 0] = 1e6
    colors = embeddings.colors(values)
    assert colors[0, 0, 0, 0] == 1
    assert 0.45 < colors[5, 0, 0, 0] < 0.55
    # All but one are the same: that one shows.
    values[..., 0] = 0
    values[3, 2, 1, 0] = 5
    colors = embeddings.colors(values)[..., 0]
    assert colors[3, 2, 1] == 1 and colors.sum() == 1


def test_two_kinds_of_cells_have_two_colors_where_they_are():
    # A person in the left half who moves to the right half; keys in head 2 tell nothing.
    keys = np.zeros([2, 2, 2, 4, 6])
    keys[0, 0, :, :2] = keys[0, 1, :, 2:] = [1, 0, 2, 0, 0, 1]
    clip = np.full([8, 60, 80, 3], 128, np.uint8)
    frames = list(embeddings.film(clip, keys, fps=10.0))
    assert len(frames) == 8
    # Panels side by side: the clip, head 1, head 2, each 300 x 400.
    tiles = [_second_panel(frame) for frame in frames]
    first, last = tiles[0], tiles[7]
    person, background = first[150, 40], first[150, 360]
    assert np.abs(person.astype(int) - background).max() > 100
    np.testing.assert_array_equal(last[150, 360], person)
    np.testing.assert_array_equal(last[150, 40], background)


def _second_panel(frame):
    """The middle one of a film's three panels, 300 x 400 pixels."""
    middle = frame.shape[1] // 2
    bottom = np.flatnonzero(np.any(frame[:, middle] != 255, axis=-1))[-1] + 1
    return frame[bottom - 300 : bottom, middle - 200 : middle + 200]


def test_filmstrip_has_a_row_per_head_with_its_variance():
    keys, _, _ = _points_on_axes()
    clip = np.full([4, 30, 40, 3], 128, np.uint8)
    one = embeddings.filmstrip(clip, keys[None])
    two = embeddings.filmstrip(clip, np.stack([keys, np.zeros_like(keys)]))
    assert two.shape[1] >= one.shape[1] and two.shape[0] - one.shape[0] == 156 + 6
    # The constant head's row is gray, 128 mixed with half of 255.
    gray = np.all(two == 128, axis=-1)
    assert gray.sum() >= 2 * 4 * 156 * 208


def test_wrong_keys_are_refused():
    clip = np.zeros([4, 30, 40, 3], np.uint8)
    with pytest.raises(ValueError, match=r"\[heads, t, h, w, D\], not float64 \(2, 3, 4\)"):
        embeddings.filmstrip(clip, np.zeros([2, 3, 4]))
    with pytest.raises(ValueError, match="with NaN or infinity"):
        embeddings.filmstrip(clip, np.full([1, 2, 3, 4, 5], np.nan))
    with pytest.raises(ValueError, match="differ in size"):
        embeddings.tinted(clip[0], np.zeros([3, 4, 3]))
