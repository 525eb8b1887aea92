# SPDX-License-Identifier: Apache-2.0
"""The same model in PyTorch, in plain modules, as something to compare with.

I3D to Mixed_4f, region proposals on the middle frame, RoI crops, the HighRes Tx head, losses,
gradients and momentum: the work of `pipeline_configs/ava_i3d_tx_highres_r300.config`. Batch norm's
fixed statistics are folded into the kernels, as there. Needs PyTorch; uses torchvision's
non-maximum suppression where it is installed, else the one here.

Shapes: B clips, T frames, H W pixels, t h w cells of the feature map, C channels, A anchors, R
proposals, K classes, G people. Boxes are [ymin, xmin, ymax, xmax] in pixels.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.accelerator import torch_boxes

_EPSILON = 1e-3  # of batch norm

# Stages to Mixed_4f: ("conv", name, channels, kernel, stride), ("pool", kernel, stride) or
# ("mixed", name, branch 0, (1x1x1, 3x3x3) of 1, (1x1x1, 3x3x3) of 2, branch 3).
STAGES = (
    ("conv", "Conv3d_1a_7x7", 64, (7, 7, 7), (2, 2, 2)),
    ("pool", (1, 3, 3), (1, 2, 2)),
    ("conv", "Conv3d_2b_1x1", 64, (1, 1, 1), (1, 1, 1)),
    ("conv", "Conv3d_2c_3x3", 192, (3, 3, 3), (1, 1, 1)),
    ("pool", (1, 3, 3), (1, 2, 2)),
    ("mixed", "Mixed_3b", 64, (96, 128), (16, 32), 32),
    ("mixed", "Mixed_3c", 128, (128, 192), (32, 96), 64),
    ("pool", (3, 3, 3), (2, 2, 2)),
    ("mixed", "Mixed_4b", 192, (96, 208), (16, 48), 64),
    ("mixed", "Mixed_4c", 160, (112, 224), (24, 64), 64),
    ("mixed", "Mixed_4d", 128, (128, 256), (24, 64), 64),
    ("mixed", "Mixed_4e", 112, (144, 288), (32, 64), 64),
    ("mixed", "Mixed_4f", 256, (160, 320), (32, 128), 128),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Sizes of the model; the defaults are the main config's."""

    frames: int = 64
    height: int = 400
    width: int = 400
    depth_multiplier: float = 1.0
    num_classes: int = 80
    proposals: int = 300
    rpn_depth: int = 512
    rpn_minibatch: int = 256
    rpn_nms_iou: float = 0.7
    stride: int = 16
    crop: int = 14
    query_channels: int = 128
    embedding: int = 8
    feature_size: int = 128
    ffn_size: int = 512
    layers: int = 3
    heads: int = 2
    dropout: float = 0.3
    detections_per_class: int = 100
    detections: int = 300
    nms_iou: float = 0.6


TINY = Options(
    frames=8,
    height=64,
    width=64,
    depth_multiplier=0.125,
    num_classes=5,
    proposals=8,
    rpn_minibatch=64,
)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """What TensorFlow's SAME adds before and after."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _paddings(x: torch.Tensor, kernel, stride) -> list[tuple[int, int]]:
    return [
        same_padding(size, k, s) for size, k, s in zip(x.shape[2:], kernel, stride, strict=True)
    ]


def _pad(x: torch.Tensor, paddings: list[tuple[int, int]], value: float = 0.0) -> torch.Tensor:
    return F.pad(x, [cells for pair in reversed(paddings) for cells in pair], value=value)


def max_pool_same(x: torch.Tensor, kernel, stride) -> torch.Tensor:
    """Max pooling with SAME padding."""
    paddings = _paddings(x, kernel, stride)
    if all(before == after for before, after in paddings):
        return F.max_pool3d(x, kernel, stride, padding=[before for before, _ in paddings])
    if all(before == 0 for before, _ in paddings):
        # A window that hangs over the end is cut: the same, without a copy.
        return F.max_pool3d(x, kernel, stride, ceil_mode=True)
    return F.max_pool3d(_pad(x, paddings, -math.inf), kernel, stride)


class ConvUnit(nn.Module):
    """Convolution, batch norm with fixed statistics, ReLU."""

    def __init__(self, inputs: int, filters: int, kernel, stride=(1, 1, 1)):
        super().__init__()
        self.stride = stride
        std = math.sqrt(2.0 / (inputs * math.prod(kernel)))
        self.weight = nn.Parameter(torch.randn(filters, inputs, *kernel) * std)
        self.beta = nn.Parameter(torch.zeros(filters))
        self.register_buffer("mean", torch.zeros(filters))
        self.register_buffer("variance", torch.ones(filters))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inputs, T, H, W] -> [B, filters, ...] with SAME padding."""
        scale = torch.rsqrt(self.variance + _EPSILON)
        weight = self.weight * scale[:, None, None, None, None]
        bias = self.beta - self.mean * scale
        if x.is_contiguous(memory_format=torch.channels_last_3d):
            weight = weight.contiguous(memory_format=torch.channels_last_3d)
        paddings = _paddings(x, self.weight.shape[2:], self.stride)
        if all(before == after for before, after in paddings):
            padding = [before for before, _ in paddings]
        else:
            x, padding = _pad(x, paddings), 0
        return F.relu(F.conv3d(x, weight, bias, self.stride, padding))


class I3D(nn.Module):
    """[B, 3, T, H, W] in [-1, 1] -> [B, C, T/4, H/16, W/16]; units by their published paths."""

    def __init__(self, depth_multiplier: float = 1.0):
        super().__init__()
        self.units = nn.ModuleDict()
        channels = 3

        def scaled(number: int) -> int:
            return max(int(number * depth_multiplier), min(number, 8))

        def add(path: str, inputs: int, filters: int, kernel, stride=(1, 1, 1)) -> int:
            self.units[path] = ConvUnit(inputs, scaled(filters), kernel, stride)
            return scaled(filters)

        one, three = (1, 1, 1), (3, 3, 3)
        for stage in STAGES:
            if stage[0] == "conv":
                channels = add(stage[1], channels, *stage[2:])
            elif stage[0] == "mixed":
                _, name, zero, first, second, last = stage
                outputs = add(f"{name}/Branch_0/Conv3d_0a_1x1", channels, zero, one)
                for branch, (reduced, filters) in (("Branch_1", first), ("Branch_2", second)):
                    inner = add(f"{name}/{branch}/Conv3d_0a_1x1", channels, reduced, one)
                    outputs += add(f"{name}/{branch}/Conv3d_0b_3x3", inner, filters, three)
                outputs += add(f"{name}/Branch_3/Conv3d_0b_1x1", channels, last, one)
                channels = outputs
        self.channels = channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        for stage in STAGES:
            if stage[0] == "conv":
                x = self.units[stage[1]](x)
            elif stage[0] == "pool":
                x = max_pool_same(x, *stage[1:])
            else:
                x = self._mixed(stage[1], x)
        return x

    def _mixed(self, name: str, x: torch.Tensor) -> torch.Tensor:
        def unit(path: str, features: torch.Tensor) -> torch.Tensor:
            return self.units[f"{name}/{path}"](features)

        outputs = [unit("Branch_0/Conv3d_0a_1x1", x)]
        for branch in ("Branch_1", "Branch_2"):
            reduced = unit(f"{branch}/Conv3d_0a_1x1", x)
            outputs.append(unit(f"{branch}/Conv3d_0b_3x3", reduced))
        pooled = max_pool_same(x, (3, 3, 3), (1, 1, 1))
        outputs.append(unit("Branch_3/Conv3d_0b_1x1", pooled))
        return torch.cat(outputs, dim=1)


class TxUnit(nn.Module):
    """One step of attention of each query over all cells (section 3.2)."""

    def __init__(self, queries: int, memory: int, options: Options):
        super().__init__()
        size = options.feature_size
        self.query, self.key, self.value = (
            nn.Linear(queries, size),
            nn.Linear(memory, size),
            nn.Linear(memory, size),
        )
        self.hidden, self.output = (
            nn.Linear(size, options.ffn_size),
            nn.Linear(options.ffn_size, size),
        )
        self.attention_norm = nn.LayerNorm(size, eps=1e-6)
        self.ffn_norm = nn.LayerNorm(size, eps=1e-6)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, query: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """[B, R, any], [B, t h w, C] -> [B, R, D]."""
        query = self.query(query)
        # One head: without its axis, PyTorch's fused kernels would not take it.
        one_head = (each[:, None] for each in (query, self.key(cells), self.value(cells)))
        attended = F.scaled_dot_product_attention(*one_head)[:, 0]
        query = self.attention_norm(query + self.dropout(attended))
        update = self.output(F.relu(self.hidden(query)))
        return self.ffn_norm(query + self.dropout(update))


class TxHead(nn.Module):
    """Crops the people out of the middle frame, lets them attend, classifies, refines boxes."""

    def __init__(self, channels: int, options: Options):
        super().__init__()
        self.options = options
        size = options.embedding
        self.space = nn.Sequential(nn.Linear(2, size), nn.ReLU(), nn.Linear(size, size))
        self.time = nn.Sequential(nn.Linear(1, size), nn.ReLU(), nn.Linear(size, size))
        memory = channels + 2 * size
        cells = (options.crop // 2) ** 2
        self.reduce = nn.Linear(memory, options.query_channels)
        self.combine = nn.Linear(cells * options.query_channels, memory)
        width = options.heads * options.feature_size
        self.layers = nn.ModuleList(
            nn.ModuleList(
                TxUnit(width if layer else memory, memory, options) for _ in range(options.heads)
            )
            for layer in range(options.layers)
        )
        self.classes = nn.Linear(width, options.num_classes + 1)
        self.boxes = nn.Linear(width, 4)

    def forward(self, features: torch.Tensor, boxes: torch.Tensor):
        """[B, C, t, h, w], normalized boxes [B, R, 4] -> logits [B, R, K + 1], codes [B, R, 4]."""
        memory = self.with_location(features)
        people = self.crops(memory[:, :, memory.shape[2] // 2], boxes)  # [B, R, P, P, C]
        query = self.combine(self.reduce(people).flatten(2))
        cells = memory.flatten(2).transpose(1, 2)  # [B, t h w, C]
        for units in self.layers:
            query = torch.cat([unit(query, cells) for unit in units], dim=-1)
        query = query.float()
        with torch.autocast(features.device.type, enabled=False):
            return self.classes(query), self.boxes(query)

    def with_location(self, features: torch.Tensor) -> torch.Tensor:
        """Appends the embeddings of (h, w) and of t to every cell."""
        batch, _, t, h, w = features.shape

        def centred(size: int) -> torch.Tensor:
            return (torch.arange(size, device=features.device) + 0.5) / size - 0.5

        rows, columns = torch.meshgrid(centred(h), centred(w), indexing="ij")
        space = self.space(torch.stack([rows, columns], dim=-1)).to(features.dtype)  # [h, w, E]
        time = self.time(centred(t)[:, None]).to(features.dtype)  # [t, E]
        space = space.permute(2, 0, 1)[None, :, None].expand(batch, -1, t, h, w)
        time = time.T[None, :, :, None, None].expand(batch, -1, t, h, w)
        return torch.cat([features, space, time], dim=1)

    def crops(self, frame: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """RoI crops of [B, C, h, w], crop x crop cells and then 2x2 max pooling."""
        batch, proposals = boxes.shape[:2]
        crop = self.options.crop
        steps = torch.linspace(0.0, 1.0, crop, device=frame.device)
        low, high = boxes[..., None, :2], boxes[..., None, 2:]
        points = low + steps[:, None] * (high - low)  # [B, R, crop, (y, x)]
        y = points[..., 0][..., :, None].expand(-1, -1, crop, crop)
        x = points[..., 1][..., None, :].expand(-1, -1, crop, crop)
        # From [0, 1] to grid_sample's [-1, 1], corner to corner.
        grid = torch.stack([x, y], dim=-1).reshape(batch, proposals * crop, crop, 2) * 2.0 - 1.0
        with torch.autocast(frame.device.type, enabled=False):
            sampled = F.grid_sample(frame.float(), grid.float(), align_corners=True)
        pooled = F.max_pool2d(sampled, 2)  # [B, C, R P, P]
        cells = crop // 2
        pooled = pooled.reshape(batch, -1, proposals, cells, cells)
        return pooled.permute(0, 2, 3, 4, 1).to(frame.dtype)


class RegionProposals(nn.Module):
    """The first stage, on the middle frame: codes and logits of every anchor."""

    def __init__(self, channels: int, options: Options):
        super().__init__()
        self.conv = nn.Conv2d(channels, options.rpn_depth, 3, padding=1)
        self.codes = nn.Conv2d(options.rpn_depth, 12 * 4, 1)
        self.objectness = nn.Conv2d(options.rpn_depth, 12 * 2, 1)

    def forward(self, features: torch.Tensor):
        """[B, C, t, h, w] -> [B, A, 4], [B, A, 2]."""
        middle = features[:, :, features.shape[2] // 2].float()
        with torch.autocast(features.device.type, enabled=False):
            hidden = F.relu6(self.conv(middle))
            codes, logits = self.codes(hidden), self.objectness(hidden)
        batch = codes.shape[0]
        return (
            codes.permute(0, 2, 3, 1).reshape(batch, -1, 4),
            logits.permute(0, 2, 3, 1).reshape(batch, -1, 2),
        )


class Detector(nn.Module):
    """The whole model; `losses` trains it, the others use it."""

    def __init__(self, options: Options):
        super().__init__()
        self.options = options
        self.trunk = I3D(options.depth_multiplier)
        self.rpn = RegionProposals(self.trunk.channels, options)
        self.head = TxHead(self.trunk.channels, options)
        self.register_buffer(
            "anchors", torch_boxes.anchors(options.height, options.width, options.stride)
        )

    def clips(self, stacked: torch.Tensor, dtype: torch.dtype, channels_last: bool):
        """Stacked uint8 clips [B, T H, W, 3] -> [B, 3, T, H, W] in [-1, 1]."""
        batch, _, width, _ = stacked.shape
        clips = stacked.reshape(batch, self.options.frames, -1, width, 3).permute(0, 4, 1, 2, 3)
        clips = clips.to(dtype) * (2.0 / 255.0) - 1.0
        layout = torch.channels_last_3d if channels_last else torch.contiguous_format
        return clips.contiguous(memory_format=layout)

    def forward(self, clips: torch.Tensor):
        """Clips [B, 3, T, H, W] -> what both stages predict, and the proposals."""
        features = self.trunk(clips)
        codes, objectness = self.rpn(features)
        proposals, scores = self.propose(codes.detach(), objectness.detach())
        logits, refinements = self.head(features, proposals / self._size())
        return codes, objectness, proposals, scores, logits, refinements

    def _size(self) -> torch.Tensor:
        height, width = self.options.height, self.options.width
        return torch.tensor([height, width, height, width], device=self.anchors.device)

    @torch.no_grad()
    def propose(self, codes: torch.Tensor, objectness: torch.Tensor):
        """Proposals [B, R, 4], zeros where there are fewer, and their scores [B, R]."""
        boxes = torch.clamp(torch_boxes.decode(codes, self.anchors), min=0.0)
        boxes = torch.minimum(boxes, self._size().to(boxes.dtype))
        scores = objectness.softmax(-1)[..., 1]
        proposals = boxes.new_zeros(len(boxes), self.options.proposals, 4)
        kept_scores = boxes.new_zeros(len(boxes), self.options.proposals)
        for index in range(len(boxes)):
            kept = torch_boxes.nms(boxes[index], scores[index], self.options.rpn_nms_iou)
            kept = kept[: self.options.proposals]
            proposals[index, : len(kept)] = boxes[index, kept]
            kept_scores[index, : len(kept)] = scores[index, kept]
        return proposals, kept_scores

    def losses(self, clips, boxes, classes, weights) -> torch.Tensor:
        """The sum of the four losses; boxes [B, G, 4] in pixels, classes [B, G, K], weights."""
        codes, objectness, proposals, scores, logits, refinements = self(clips)
        first = self.first_stage_loss(codes, objectness, boxes, weights)
        second = self.second_stage_loss(
            proposals, scores, logits, refinements, boxes, classes, weights
        )
        return first + second

    def first_stage_loss(self, codes, objectness, boxes, weights) -> torch.Tensor:
        """Of a sample of the anchors: objectness, and twice the codes of the positive ones."""
        overlap = torch_boxes.iou(self.anchors[None], boxes) * (weights > 0)[:, None]  # [B, A, G]
        best, person = overlap.max(-1)
        is_best = (overlap == overlap.amax(1, keepdim=True)) & (overlap > 0)
        positive = (best >= 0.7) | is_best.any(-1)
        negative = (best < 0.3) & ~positive
        sampled_positive = torch_boxes.sample(positive, self.options.rpn_minibatch // 2)
        left = self.options.rpn_minibatch - sampled_positive.sum(-1)
        sampled = sampled_positive | torch_boxes.sample(negative, left)
        number = sampled.sum(-1).clamp(min=1)
        logits = F.cross_entropy(
            objectness.flatten(0, 1), positive.long().flatten(), reduction="none"
        )
        objectness_loss = ((logits.reshape(sampled.shape) * sampled).sum(-1) / number).mean()
        matched = boxes.gather(1, person[..., None].expand(-1, -1, 4))
        off = torch_boxes.smooth_l1(codes, torch_boxes.encode(matched, self.anchors))
        return objectness_loss + 2.0 * ((off * sampled_positive).sum(-1) / number).mean()

    def second_stage_loss(
        self, proposals, scores, logits, refinements, boxes, classes, weights
    ) -> torch.Tensor:
        """Of all proposals: every action's logistic loss, and twice the refinements'."""
        overlap = torch_boxes.iou(proposals, boxes) * (weights > 0)[:, None]  # [B, R, G]
        best, person = overlap.max(-1)
        positive = best >= 0.5
        valid = scores > 0
        number = valid.sum(-1, keepdim=True).clamp(min=1) * len(proposals)
        matched_classes = classes.gather(1, person[..., None].expand(-1, -1, classes.shape[-1]))
        targets = torch.cat(
            [(~positive)[..., None].float(), matched_classes * positive[..., None]], dim=-1
        )
        by_class = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(-1)
        matched = boxes.gather(1, person[..., None].expand(-1, -1, 4))
        off = torch_boxes.smooth_l1(refinements, torch_boxes.encode(matched, proposals)) * positive
        return ((by_class + 2.0 * off) * valid / number).sum()

    @torch.no_grad()
    def scored_proposals(self, clips: torch.Tensor):
        """Refined boxes [B, R, 4] and scores [B, R, K] of all proposals."""
        _, _, proposals, valid, logits, refinements = self(clips)
        boxes = torch.clamp(torch_boxes.decode(refinements, proposals), min=0.0)
        boxes = torch.minimum(boxes, self._size().to(boxes.dtype))
        return boxes, logits[..., 1:].sigmoid() * (valid > 0)[..., None]

    @torch.no_grad()
    def detect(self, clips: torch.Tensor):
        """Boxes [B, N, 4], scores [B, N] and classes [B, N] of the highest-scoring detections."""
        boxes, scores = self.scored_proposals(clips)
        kept = torch_boxes.nms_by_class(boxes, scores.transpose(1, 2), self.options.nms_iou)
        kept = torch.where(kept, scores.transpose(1, 2), torch.zeros_like(kept, dtype=scores.dtype))
        per_class = min(self.options.detections_per_class, kept.shape[-1])
        best, index = kept.topk(per_class, dim=-1)  # [B, K, per class]
        number = min(self.options.detections, best.flatten(1).shape[1])
        top, place = best.flatten(1).topk(number, dim=-1)
        proposal = index.flatten(1).gather(1, place)
        return boxes.gather(1, proposal[..., None].expand(-1, -1, 4)), top, place // per_class


def load_trunk(trunk: I3D, variables: dict) -> int:
    """Takes over the trunk's variables of a manifest, by name; returns their number.

    Args:
        trunk: to be filled.
        variables: NumPy arrays by TensorFlow's names, such as
            ".../Mixed_3b/Branch_0/Conv3d_0a_1x1/conv_3d/w".

    Raises:
        KeyError: for a unit of the trunk that they do not hold.
    """
    number = 0
    for path, unit in trunk.units.items():
        for ending, target in (
            ("conv_3d/w", unit.weight),
            ("batch_norm/beta", unit.beta),
            ("batch_norm/moving_mean", unit.mean),
            ("batch_norm/moving_variance", unit.variance),
        ):
            wanted = f"/{path}/{ending}"
            found = [name for name in variables if f"/{name}".endswith(wanted)]
            if len(found) != 1:
                raise KeyError(f"{len(found)} variables end in {wanted}")
            value = torch.from_numpy(variables[found[0]])
            if ending == "conv_3d/w":
                value = value.permute(4, 3, 0, 1, 2)
            with torch.no_grad():
                target.copy_(value)
            number += 1
    return number
