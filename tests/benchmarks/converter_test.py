# SPDX-License-Identifier: Apache-2.0
"""The converter's benchmark measures the data that it says, and gives medians."""

import av

from benchmarks import converter


def test_data_of_other_parameters_are_other_data(tmp_path):
    frames = {}
    for seconds in (2, 3, 2):
        folder = converter.make_data(tmp_path, 1, seconds, (64, 48))
        (path,) = (folder / "videos").iterdir()
        with av.open(str(path)) as container:
            count = sum(1 for _ in container.decode(video=0))
        # Made once, and found again.
        assert frames.setdefault(path, (count, path.stat().st_mtime_ns)) == (
            25 * seconds,
            path.stat().st_mtime_ns,
        )
    assert len(frames) == 2


def test_medians_over_rounds(capsys):
    wall = {"bare": [10.0, 20.0, 12.5], "1 worker": [20.0] * 3, "2 workers": [10.0] * 3}
    converter.print_medians(100, wall, wall)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Of 3 rounds, median (least to most):"
    assert "frames/s 8.0 (5.0 to 10.0), seconds 12.5 (10.0 to 20.0)" in lines[1]
    assert lines[-3].endswith("2.000 (2.000 to 2.000)")  # 2 workers : 1 worker
