# SPDX-License-Identifier: Apache-2.0
r"""Shows that PyTorch's I3D gives TensorFlow's features from the same weights, on the CPU.

    python -m benchmarks.accelerator.torch_check --programs programs [NAME ...]

takes the trunk programs that export.py wrote with --reference, draws the same weights and clips,
and compares the features: the norm of the difference over the norm of TensorFlow's. Exit status 1
above 1e-4. It also compares the own non-maximum suppression with a plain loop.
"""

import argparse
import pathlib
import sys

import numpy as np
import torch

from benchmarks.accelerator import programs, torch_boxes, torch_model

_TOLERANCE = 1e-4
_SEED = 0


def deviation(folder: pathlib.Path, name: str) -> float:
    """Of the features that PyTorch makes, relative."""
    _, manifest = programs.read_program(folder, name)
    values = programs.draw_all(manifest.parameters, _SEED)
    options = torch_model.Options() if manifest.size == "full" else torch_model.TINY
    detector = torch_model.Detector(options).eval()
    torch_model.load_trunk(detector.trunk, values)
    with torch.no_grad():
        clips = detector.clips(torch.from_numpy(values["clips"]), torch.float32, True)
        features = detector.trunk(clips).permute(0, 2, 3, 4, 1).numpy()
    reference = np.load(programs.reference_path(folder, name))["features"]
    if features.shape != reference.shape:
        raise programs.ProgramError(
            f"{name}: PyTorch's features have shape {features.shape}, not {reference.shape}."
        )
    return float(np.linalg.norm(features - reference) / np.linalg.norm(reference))


def suppression_by_loop(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Greedy non-maximum suppression, box by box."""
    overlaps = torch_boxes.iou(torch.from_numpy(boxes), torch.from_numpy(boxes)).numpy()
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if all(overlaps[index, other] <= threshold for other in kept):
            kept.append(int(index))
    return kept


def suppression_agrees(number: int = 500, seed: int = 0) -> bool:
    """Whether the own suppression keeps what the loop keeps."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 300, (number, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(20, 100, (number, 2))], axis=1)
    boxes, scores = boxes.astype(np.float32), rng.uniform(size=number).astype(np.float32)
    own = torch_boxes.nms_plain(torch.from_numpy(boxes), torch.from_numpy(scores), 0.5)
    return own.tolist() == suppression_by_loop(boxes, scores, 0.5)


def main() -> int:
    """Checks the programs that are named, or all trunks in fp32 with a reference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=pathlib.Path, required=True, help="export.py's folder")
    parser.add_argument("names", nargs="*", help="programs; without: all that can be compared")
    arguments = parser.parse_args()
    names = arguments.names or [
        name
        for name in programs.exported_names(arguments.programs)
        if name.startswith("trunk-")
        and "-fp32" in name
        and programs.reference_path(arguments.programs, name).exists()
    ]
    if not names:
        print(f"error: no trunk in {arguments.programs} has a reference", file=sys.stderr)
        return 2
    passed = suppression_agrees()
    print(
        f"PyTorch {torch.__version__}; non-maximum suppression: {'as the loop' * passed or 'NOT'}"
    )
    for name in names:
        off = deviation(arguments.programs, name)
        passed &= off <= _TOLERANCE
        print(f"{name}: {'agrees' if off <= _TOLERANCE else 'DIFFERS'}, {off:.1e}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
