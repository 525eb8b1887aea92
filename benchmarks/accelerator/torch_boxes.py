# SPDX-License-Identifier: Apache-2.0
"""Boxes in PyTorch: anchors, codes, overlaps, suppression, sampling; see torch_model.py.

Shapes: B clips, A anchors, R proposals, K classes. Boxes are [ymin, xmin, ymax, xmax] in pixels.
"""

import math

import torch
import torch.nn.functional as F

try:
    from torchvision.ops import nms as _torchvision_nms
except Exception:  # not installed, or not built for this PyTorch
    _torchvision_nms = None

_BOX_SCALES = (10.0, 10.0, 5.0, 5.0)


def anchors(height: int, width: int, stride: int) -> torch.Tensor:
    """[A, 4]: 4 scales and 3 aspect ratios at every cell, clipped to the frame."""
    rows, columns = math.ceil(height / stride), math.ceil(width / stride)
    y, x = torch.meshgrid(
        torch.arange(rows) * float(stride),
        torch.arange(columns) * float(stride),
        indexing="ij",
    )
    sizes = [
        (256.0 * scale / math.sqrt(ratio), 256.0 * scale * math.sqrt(ratio))
        for ratio in (0.5, 1.0, 2.0)
        for scale in (0.25, 0.5, 1.0, 2.0)
    ]
    half = torch.tensor(sizes) / 2.0  # [12, (height, width)]
    centre = torch.stack([y, x], dim=-1).reshape(-1, 1, 2)
    boxes = torch.cat([centre - half, centre + half], dim=-1).reshape(-1, 4)
    limit = torch.tensor([height, width] * 2, dtype=boxes.dtype)
    return torch.minimum(boxes.clamp(min=0.0), limit)


def _centres(boxes: torch.Tensor):
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-3)
    return boxes[..., :2] + size / 2.0, size


def encode(boxes: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """Boxes relative to others, in Faster R-CNN's code."""
    centre, size = _centres(boxes)
    base_centre, base_size = _centres(base)
    code = torch.cat([(centre - base_centre) / base_size, torch.log(size / base_size)], dim=-1)
    return code * code.new_tensor(_BOX_SCALES)


def decode(codes: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """The boxes of such codes."""
    codes = codes / codes.new_tensor(_BOX_SCALES)
    base_centre, base_size = _centres(base)
    centre = codes[..., :2] * base_size + base_centre
    half = torch.exp(codes[..., 2:].clamp(max=10.0)) * base_size / 2.0
    return torch.cat([centre - half, centre + half], dim=-1)


def iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """[..., N, 4], [..., M, 4] -> [..., N, M]."""
    low = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    high = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    both = (high - low).clamp(min=0.0).prod(-1)
    area_a = (a[..., 2:] - a[..., :2]).prod(-1)[..., :, None]
    area_b = (b[..., 2:] - b[..., :2]).prod(-1)[..., None, :]
    return both / (area_a + area_b - both).clamp(min=1e-6)


def nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Indices of what greedy non-maximum suppression keeps, the highest score first."""
    if _torchvision_nms is not None:
        return _torchvision_nms(boxes.float(), scores.float(), threshold)
    return nms_plain(boxes, scores, threshold)


def nms_plain(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """`nms` in plain PyTorch, all boxes at once."""
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    return order[_unsuppressed((iou(boxes, boxes) > threshold)[None])[0]]


def nms_by_class(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Boxes [B, R, 4], scores [B, K, R] -> bool [B, K, R], what each class keeps."""
    overlaps = iou(boxes, boxes) > threshold  # [B, R, R]
    order = scores.argsort(dim=-1, descending=True, stable=True)  # [B, K, R]
    batch, num_classes, number = order.shape
    rows = overlaps[:, None].expand(-1, num_classes, -1, -1)
    rows = rows.gather(2, order[..., None].expand(-1, -1, -1, number))
    sorted_overlaps = rows.gather(3, order[:, :, None].expand(-1, -1, number, -1))
    kept = _unsuppressed(sorted_overlaps.flatten(0, 1)).reshape(batch, num_classes, number)
    return torch.zeros_like(kept).scatter(2, order, kept)


def _unsuppressed(overlaps: torch.Tensor) -> torch.Tensor:
    """Which of the sorted boxes stay: bool [N, n, n], row i over column j if i comes first.

    A box stays if no box that stays and comes first overlaps it. Applied again and again from "all
    stay" this settles, box by box from the first on.
    """
    first = overlaps.triu(diagonal=1)
    kept = torch.ones(first.shape[:2], dtype=torch.bool, device=first.device)
    while True:
        now = ~(first & kept[:, :, None]).any(dim=1)
        if torch.equal(now, kept):
            return kept
        kept = now


def sample(mask: torch.Tensor, number) -> torch.Tensor:
    """A random choice of up to so many of the true elements of each row [B, A]."""
    order = torch.where(mask, torch.rand(mask.shape, device=mask.device), 2.0).argsort(dim=-1)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(mask.shape[1], device=mask.device).expand_as(order)
    )
    limit = number[:, None] if isinstance(number, torch.Tensor) else number
    return mask & (rank < limit)


def smooth_l1(codes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """[..., 4], [..., 4] -> [...]."""
    return F.smooth_l1_loss(codes, targets, reduction="none").sum(-1)
