# SPDX-License-Identifier: Apache-2.0
"""Attention pictures are checked by where they light up, against places computed by hand.

Shapes: M heads, T frames, H W pixels, t h w cells.
"""

import numpy as np
import pytest

from object_detection_ext.visualization import attention, drawing, sheet

_BOX = (0.1, 0.2, 0.9, 0.5)
_ACTIONS = (("stand", 0.9), ("wave", 0.4))


def _one_hot(t, h, w, *place):
    weights = np.zeros([t, h, w])
    weights[place] = 1.0
    return weights


def _gray_clip(num_frames=8, height=48, width=64):
    return np.full([num_frames, height, width, 3], 100, np.uint8)


def _colored(picture):
    """Where a picture is not gray: [H, W] bool."""
    return np.ptp(picture.astype(int), axis=-1) > 12


def test_frames_between_cell_centres_are_linear():
    # 8 frames, 2 cells of 4: their centres lie at the frames 1.5 and 5.5.
    weights = np.array([0.0, 1.0])[:, None, None]
    expected = [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]
    np.testing.assert_allclose(attention.frame_weights(weights, 8)[:, 0, 0], expected)
    # 5 frames, 2 cells of 2.5: centres at 0.75 and 3.25.
    np.testing.assert_allclose(
        attention.frame_weights(weights, 5)[:, 0, 0], [0, 0.1, 0.5, 0.9, 1], atol=1e-12
    )


def test_as_many_frames_as_cells_change_nothing_and_one_cell_is_everywhere():
    weights = np.random.default_rng(0).random([4, 2, 3])
    np.testing.assert_array_equal(attention.frame_weights(weights, 4), weights)
    np.testing.assert_array_equal(attention.frame_weights(weights[:1], 3), [weights[0]] * 3)


def test_shifted_centres_move_what_is_between_them():
    # 8 frames, 2 cells of 4, centres on the last frame of each: 3 and 7.
    weights = np.array([0.0, 1.0])
    expected = [0, 0, 0, 0, 0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose(attention.frame_weights(weights, 8, 3 / 8), expected)
    # In space: down and to the right, the cells' last pixels of 4.
    placement = attention.Placement(shift=(0.0, 3 / 8, 3 / 8))
    picture = attention.upsampled(np.eye(2), 8, 8, placement)
    np.testing.assert_allclose(picture[3, 3::4], [1, 0])
    np.testing.assert_allclose(picture[7, 3::4], [0, 1])
    np.testing.assert_allclose(picture[5, 5], 0.5)
    peak = attention.summarize(_one_hot(2, 2, 2, 0, 0, 1), 8, placement._replace(shift=[3 / 8] * 3))
    assert (peak["peak"]["frame"], peak["peak"]["y"], peak["peak"]["x"]) == (3, 0.4375, 0.9375)


def test_reversed_time_gives_reversed_frames():
    weights = np.random.default_rng(0).random([4, 2, 3])
    np.testing.assert_allclose(
        attention.frame_weights(weights[::-1], 13), attention.frame_weights(weights, 13)[::-1]
    )


def test_upsampled_map_covers_the_frame_from_edge_to_edge():
    cells = np.arange(12.0).reshape(3, 4)
    picture = attention.upsampled(cells, 30, 80)
    assert picture.shape == (30, 80)
    # The centre of cell (i, j) is between the pixels 10 i + 4, 10 i + 5 and 20 j + 9, 20 j + 10.
    rows, columns = 10 * np.arange(3), 20 * np.arange(4)
    corners = [picture[np.ix_(rows + y, columns + x)] for y in (4, 5) for x in (9, 10)]
    np.testing.assert_allclose(np.mean(corners, axis=0), cells, atol=0.3)
    np.testing.assert_allclose(picture[:5, :10], 0.0, atol=1e-6)
    np.testing.assert_allclose(picture[25:, 70:], 11.0, atol=1e-5)


def test_upsampled_map_leaves_the_models_padding_out():
    # The frame takes the upper half and the left three quarters of what the model saw.
    cells = np.arange(16.0).reshape(4, 4)
    picture = attention.upsampled(cells, 20, 30, attention.Placement(extent=(0.5, 0.75)))
    np.testing.assert_allclose(picture, attention.upsampled(cells, 40, 40)[:20, :30])


def test_overlay_hides_a_frame_where_the_weight_is_and_nowhere_else():
    frame = np.random.default_rng(0).integers(0, 256, [40, 60, 3], np.uint8)
    frame[:] = frame[..., :1]  # gray: what is changed is colour
    values = np.zeros([40, 60])
    values[10:20, 30:] = 3.0
    picture = attention.overlay(frame, values, top=3.0)
    np.testing.assert_array_equal(_colored(picture), values > 0)
    np.testing.assert_allclose(picture[values == 0], frame[values == 0], atol=1)
    # The frame's contrast is still there under the strongest colour, a fifth of it.
    covered, under = picture[10:20, 30:, 0].astype(float), frame[10:20, 30:, 0].astype(float)
    assert np.corrcoef(covered.ravel(), under.ravel())[0, 1] > 0.99
    assert np.ptp(covered) == pytest.approx(0.2 * np.ptp(under), abs=2)


def test_stronger_weights_hide_more():
    frame = np.full([1, 50, 3], 255, np.uint8)
    picture = attention.overlay(frame, np.linspace(0, 1, 50)[None], top=1.0)
    difference = np.abs(picture[0].astype(int) - 255).sum(axis=-1)
    assert difference[0] == 0 and np.all(np.diff(difference[:15]) > 0)


def test_values_above_the_top_get_its_colour():
    frame = np.zeros([1, 2, 3], np.uint8)
    picture = attention.overlay(frame, np.array([[2.0, 9.0]]), top=2.0)
    np.testing.assert_array_equal(picture[0, 0], picture[0, 1])
    with pytest.raises(ValueError, match="a top above 0"):
        attention.overlay(frame, np.zeros([1, 2]), top=0.0)
    with pytest.raises(ValueError, match="a map of its size"):
        attention.overlay(frame, np.zeros([2, 2]), top=1.0)


def _runs(is_in, length):
    """Starts of the runs of exactly `length` true values."""
    edges = np.flatnonzero(np.diff(np.r_[False, is_in, False].astype(int)))
    return [a for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a == length]


def _tiles(picture, height, width):
    """The tiles of a filmstrip, [rows, columns, height, width, 3]: what is mostly not paper."""
    is_ink = np.any(picture != 255, axis=-1)
    rows = _runs(is_ink.mean(axis=1) > 0.8, height)
    columns = _runs(is_ink[rows[-1] : rows[-1] + height].any(axis=0), width)
    return np.array([[picture[y : y + height, x : x + width] for x in columns] for y in rows])


def _strip_tiles(weights, num_frames=8, **kwargs):
    picture = attention.filmstrip(
        _gray_clip(num_frames), weights, _BOX, _ACTIONS, fps=10.0, tile_width=160, **kwargs
    )
    tiles = _tiles(picture, 120, 160)
    assert tiles.shape[:2] == (1 + len(weights) + (len(weights) > 1), min(num_frames, 8))
    return tiles


def test_one_hot_cell_lights_up_its_frames_and_its_region():
    weights = np.stack([_one_hot(2, 3, 4, 1, 0, 3)])
    tiles = _strip_tiles(weights)  # 8 of 8 frames, 120x160 pixels: cells of 40x40
    assert tiles.shape == (2, 8, 120, 160, 3)
    lit = _colored(tiles[1])
    lit[4] = False  # the middle frame has the box as well
    # See test_frames_between_cell_centres_are_linear.
    np.testing.assert_array_equal(lit.any(axis=(1, 2)), [0, 0, 1, 1, 0, 1, 1, 1])
    rows, columns = np.nonzero(lit[7])
    # Bilinear: from the centre of the cell to the centres of its neighbours.
    assert rows.min() == 0 and 50 < rows.max() < 60
    assert 100 <= columns.min() < 112 and columns.max() == 159
    # Stronger in later frames, up to the centre of the cell.
    opacity = [np.abs(tiles[1, i, 5, 150].astype(int) - 100).sum() for i in (2, 3, 5, 6)]
    assert np.all(np.diff(opacity) > 0)
    np.testing.assert_array_equal(tiles[1, 6], tiles[1, 7])


def test_rows_are_the_mean_and_the_heads():
    first, second = _one_hot(1, 3, 4, 0, 0, 0), _one_hot(1, 3, 4, 0, 2, 3)
    tiles = _strip_tiles(np.stack([first, second]))[:, 0]
    lit = _colored(tiles)
    assert not lit[0].any()
    assert lit[2, 10, 10] and not lit[2, 110, 150]
    assert lit[3, 110, 150] and not lit[3, 10, 10]
    assert lit[1, 10, 10] and lit[1, 110, 150]


def test_permuted_heads_permute_the_rows():
    weights = np.random.default_rng(0).random([3, 2, 3, 4])
    weights /= weights.sum(axis=(1, 2, 3), keepdims=True)
    tiles, permuted = _strip_tiles(weights), _strip_tiles(weights[[2, 0, 1]])
    np.testing.assert_array_equal(permuted[2:], tiles[2:][[2, 0, 1]])
    np.testing.assert_allclose(permuted[1].astype(int), tiles[1], atol=1)
    assert np.abs(permuted[2].astype(int) - tiles[2]).max() > 10


def test_one_scale_holds_for_all_frames_of_a_row():
    # 12 uniform cells in the first half, a bright one in the second: the scale is that one's.
    weights = np.full([2, 3, 4], 0.01)
    weights[1, 0, 0] = 1 - 23 * 0.01
    tiles = _strip_tiles(weights[None])[1]
    dim, bright = tiles[0, 10, 10].astype(int), tiles[7, 10, 10].astype(int)
    assert bright.sum() > dim.sum() + 150
    # In the first frames all places weigh 0.01: they look the same there, and in the last frame.
    assert np.ptp(tiles[0], axis=(0, 1)).max() <= 1
    np.testing.assert_allclose(tiles[7, 110, 150].astype(int), dim, atol=2)


def test_middle_frame_has_the_persons_box_and_actions():
    weights = np.full([1, 2, 3, 4], 1 / 24)
    tiles = _strip_tiles(weights)
    changed = np.any(tiles[0] != 100, axis=-1)
    np.testing.assert_array_equal(changed.any(axis=(1, 2)), np.arange(8) == 4)
    left = tiles[0, 4, 60, round(0.2 * 159)]
    assert tuple(left) == drawing.person_color(0)
    outline = np.all(tiles[1, 4] == 255, axis=-1)
    rows, columns = np.nonzero(outline)
    np.testing.assert_allclose([rows.min(), rows.max()], [12, 107], atol=1)
    np.testing.assert_allclose([columns.min(), columns.max()], [32, 80], atol=1)
    truth = [drawing.DetectedPerson((0.3, 0.6, 0.9, 0.95), ())]
    with_truth = _strip_tiles(weights, truth=truth)[0, 4]
    assert tuple(with_truth[70, round(0.6 * 159)]) == (255, 255, 255)


def test_film_shows_every_frame_with_its_own_weights():
    weights = np.stack([_one_hot(2, 3, 4, 1, 0, 3)])
    frames = list(attention.film(_gray_clip(), weights, _BOX, _ACTIONS, fps=10.0))
    assert len(frames) == 8
    assert {frame.shape for frame in frames} == {frames[0].shape}
    assert frames[0].shape[0] % 2 == frames[0].shape[1] % 2 == 0
    # Two panels side by side; the right one's upper right corner lights up from frame 2 on.
    panel = np.array(frames)[:, 40:80, -120:-80]
    np.testing.assert_array_equal(_colored(panel).any(axis=(1, 2)), [0, 0, 1, 1, 1, 1, 1, 1])


def test_summary_tells_mass_and_peak():
    weights = 0.5 * _one_hot(2, 3, 4, 1, 0, 3) + 0.5 / 24
    summary = attention.summarize(weights, 8)
    # Cell 0 has a quarter of the mass, cell 1 the rest: 4 times 1 : 3 over the frames.
    share = np.array([1, 1, 1.25, 1.75, 2.25, 2.75, 3, 3]) / 16
    np.testing.assert_allclose(summary["frame_mass"], share, atol=1e-6)
    assert sum(summary["frame_mass"]) == pytest.approx(1, abs=1e-5)
    peak = summary["peak"]
    assert (peak["frame"], peak["y"], peak["x"]) == (6, 0.1667, 0.875)
    assert peak["times_uniform"] == pytest.approx(24 * (0.5 + 0.5 / 24))
    # In a padded frame the same cell lies elsewhere.
    padded = attention.summarize(weights, 8, attention.Placement((0.5, 0.875)))["peak"]
    assert (padded["y"], padded["x"]) == (pytest.approx(1 / 3, abs=1e-4), 1.0)


def test_wrong_weights_are_refused():
    clip = _gray_clip()
    with pytest.raises(ValueError, match="sum to 1 .* the sums are 24, 12"):
        attention.filmstrip(clip, np.ones([2, 2, 3, 4]) * [[[[1]]], [[[0.5]]]], _BOX)
    with pytest.raises(ValueError, match=r"must be \[heads, t, h, w\], not \(2, 3, 4\)"):
        attention.filmstrip(clip, np.ones([2, 3, 4]), _BOX)
    with pytest.raises(ValueError, match=r"must be uint8 \[T, H, W, 3\], not float64"):
        attention.filmstrip(clip / 255.0, np.full([1, 2, 3, 4], 1 / 24), _BOX)


def test_spaced_frames():
    assert sheet.spaced_frames(64, 8) == [0, 8, 16, 24, 32, 40, 48, 56]
    assert sheet.spaced_frames(4, 8) == [0, 1, 2, 3]
    for num_frames in range(1, 40):
        for columns in range(1, 12):
            chosen = sheet.spaced_frames(num_frames, columns)
            assert len(chosen) == min(columns, num_frames)
            assert num_frames // 2 in chosen and 0 <= chosen[0] and chosen[-1] < num_frames
    with pytest.raises(ValueError, match="not 0 and 8"):
        sheet.spaced_frames(0, 8)


def test_time_labels():
    labels = [sheet.time_label(index, 16, 12.5) for index in (0, 8, 15)]
    assert labels == ["-0.64 s", "0 s", "+0.56 s"]
    assert [sheet.time_label(i, 3, None) for i in range(3)] == ["frame -1", "frame 0", "frame +1"]
