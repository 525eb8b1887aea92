# SPDX-License-Identifier: Apache-2.0
"""A training step of torch_model.py's detector: drawn ground truth, optimizer, step."""

import torch
import torch.nn.functional as F

from benchmarks.accelerator import torch_model


def random_groundtruth(
    options: torch_model.Options, batch: int, device
) -> tuple[torch.Tensor, ...]:
    """4 people for each clip: boxes [B, 4, 4] in pixels, classes [B, 4, K], weights [B, 4]."""
    numbers = torch.rand(batch, 4, 4, device=device)
    corner = numbers[..., :2] * 0.5
    boxes = torch.cat([corner, corner + 0.2 + 0.3 * numbers[..., 2:]], dim=-1)
    boxes = boxes * torch.tensor([options.height, options.width] * 2, device=device)
    classes = torch.randint(0, options.num_classes, (batch, 4), device=device)
    return boxes, F.one_hot(classes, options.num_classes).float(), torch.ones_like(boxes[..., 0])


def make_step(model: torch_model.Detector, optimizer: torch.optim.Optimizer, autocast: bool):
    """A training step: losses, gradients, clipping, momentum; gives the loss."""

    def step(clips, boxes, classes, weights) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(clips.device.type, torch.bfloat16, enabled=autocast):
            loss = model.losses(clips, boxes, classes, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        return loss.detach()

    return step


def make_optimizer(model: torch_model.Detector) -> torch.optim.Optimizer:
    """Momentum as in the config; the regularizer as weight decay."""
    return torch.optim.SGD(
        model.parameters(),
        lr=0.01,
        momentum=0.9,
        weight_decay=1e-7,
        fused=next(model.parameters()).is_cuda,
    )
