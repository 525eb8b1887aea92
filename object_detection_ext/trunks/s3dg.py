# SPDX-License-Identifier: Apache-2.0
"""S3D-G, I3D with separable convolutions and self-gating: the trunk of the compared ARCN.

Xie et al., "Rethinking Spatiotemporal Feature Learning: Speed-Accuracy Trade-offs in Video
Classification", ECCV 2018. It is the network of the stock API (`object_detection.nets.s3dg` with
its defaults), which differs from I3D's table in this:

- the first convolution is 3x7x7 ("7 in the original I3D and S3D-G but 3 gives better performance",
  says that file);
- from Conv3d_2c_3x3 on, a 3x3x3 convolution is a 1x3x3 one with batch norm and ReLU, then a 3x1x1
  one with bias and ReLU and no batch norm (the paper puts batch norm behind both);
- from Conv3d_2c_3x3 on, the output of each branch is gated. The stock code's gates fail on maps
  that are not square; these do not.

Shapes: B clips, T frames, H W pixels, t h w cells of the feature map, C channels.
"""

import dataclasses

from object_detection_ext.trunks import i3d, stages, trunk


def _from_i3d(stage: stages.Stage) -> stages.Stage:
    if stage.name == "Conv3d_1a_7x7":
        return dataclasses.replace(stage, kernel=(3, 7, 7))
    if stage.name == "Conv3d_2c_3x3":
        return dataclasses.replace(stage, separable=True, gated=True)
    if isinstance(stage, i3d.Mixed):
        # Only I3D's published checkpoints have that other name in Mixed_5b.
        return dataclasses.replace(
            stage, separable=True, gated=True, branch_2_name=i3d.Mixed.branch_2_name
        )
    return stage


TABLE = stages.StageTable(
    network="S3D-G",
    scope="s3dg",
    default_endpoint="Mixed_4f",
    stages=tuple(map(_from_i3d, i3d.TABLE.stages)),
)


class S3DG(stages.StagedTrunk):
    """`stages.StagedTrunk` of S3D-G; at Mixed_4f the map is T/4 x H/16 x W/16, 832 channels."""

    table = TABLE


TRUNK = trunk.Trunk(
    endpoints=TABLE.endpoints,
    default_endpoint=TABLE.default_endpoint,
    strides=TABLE.strides,
    build=S3DG,
    build_tail=stages.tail_builder(TABLE),
)
