# SPDX-License-Identifier: Apache-2.0
"""Names that exported models and those who use them agree on; light to import.

What each input type takes is told in `exporting.py`, by the modules that take it.
"""

# Values of the exporter's --input_type.
CLIP_TENSOR = "clip_tensor"
ENCODED_CLIP = "encoded_clip"
TF_SEQUENCE_EXAMPLE = "tf_sequence_example"
CLIP_AND_BOXES = "clip_and_boxes"

# The signature, and its inputs.
SIGNATURE = "serving_default"
INPUT = "input_tensor"
BOXES = "boxes"

# The outputs that make up the detections; a model has more.
DETECTIONS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")

# Files in the SavedModel's assets.
LABEL_MAP_ASSET = "label_map.pbtxt"
CLIP_ASSET = "clip.json"
