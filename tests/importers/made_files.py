# SPDX-License-Identifier: Apache-2.0
"""Annotation files as the tools and data sets write them, small."""

import json

import numpy as np

from tests import numbered_videos

WIDTH, HEIGHT = 64, 48

# As CVAT exports a task of a video with `person`: an interpolated track, a mutable checkbox and a
# select, an outside box at the end; and a single shape, which CVAT exports as a track of one frame.
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>7</id>
      <name>Street, morning</name>
      <size>{size}</size>
      <mode>interpolation</mode>
      <overlap>5</overlap>
      <bugtracker></bugtracker>
      <created>2025-03-04 10:00:00.000000+00:00</created>
      <updated>2025-03-04 11:00:00.000000+00:00</updated>
      <subset>default</subset>
      <start_frame>{start}</start_frame>
      <stop_frame>{stop}</stop_frame>
      <frame_filter>{filter}</frame_filter>
      <segments>
        <segment>
          <id>9</id>
          <start>0</start>
          <stop>49</stop>
          <url>http://localhost:8080/api/jobs/9</url>
        </segment>
      </segments>
      <owner>
        <username>me</username>
        <email></email>
      </owner>
      <assignee></assignee>
      <labels>
        <label>
          <name>person</name>
          <color>#ff0000</color>
          <type>any</type>
          <attributes>
            <attribute>
              <name>waves</name>
              <mutable>True</mutable>
              <input_type>checkbox</input_type>
              <default_value>false</default_value>
              <values>false</values>
            </attribute>
            <attribute>
              <name>pose</name>
              <mutable>True</mutable>
              <input_type>select</input_type>
              <default_value>__undefined__</default_value>
              <values>__undefined__
stand
walk</values>
            </attribute>
            <attribute>
              <name>note</name>
              <mutable>False</mutable>
              <input_type>text</input_type>
              <default_value></default_value>
              <values></values>
            </attribute>
          </attributes>
        </label>
      </labels>
      <original_size>
        <width>{width}</width>
        <height>{height}</height>
      </original_size>
      <source>street.mp4</source>
    </task>
    <dumped>2025-03-04 12:00:00.000000+00:00</dumped>
  </meta>
{tracks}
</annotations>
"""

CVAT_TRACKS = "\n".join(
    [
        '  <track id="0" label="person" source="manual">',
        *(
            f'    <box frame="{frame}" keyframe="{int(frame in (10, 14))}" outside="0"'
            f' occluded="0" xtl="{6.4 + frame - 10:.2f}" ytl="4.80" xbr="{32 + frame - 10:.2f}"'
            ' ybr="43.20" z_order="0">\n'
            f'      <attribute name="waves">{"true" if frame >= 12 else "false"}</attribute>\n'
            '      <attribute name="pose">stand</attribute>\n'
            '      <attribute name="note">in a hat</attribute>\n'
            "    </box>"
            for frame in range(10, 15)
        ),
        '    <box frame="15" keyframe="1" outside="1" occluded="0" xtl="10.40" ytl="4.80"'
        ' xbr="36.00" ybr="43.20" z_order="0">\n'
        '      <attribute name="waves">true</attribute>\n'
        '      <attribute name="pose">stand</attribute>\n'
        '      <attribute name="note">in a hat</attribute>\n'
        "    </box>",
        "  </track>",
        '  <track id="1" label="person" source="manual">',
        '    <box frame="12" keyframe="1" outside="0" occluded="0" xtl="48.00" ytl="0.00"'
        ' xbr="64.00" ybr="48.00" z_order="0">\n'
        '      <attribute name="waves">false</attribute>\n'
        '      <attribute name="pose">walk</attribute>\n'
        '      <attribute name="note"></attribute>\n'
        "    </box>",
        '    <box frame="13" keyframe="1" outside="1" occluded="0" xtl="48.00" ytl="0.00"'
        ' xbr="64.00" ybr="48.00" z_order="0">\n'
        '      <attribute name="waves">false</attribute>\n'
        '      <attribute name="pose">walk</attribute>\n'
        '      <attribute name="note"></attribute>\n'
        "    </box>",
        "  </track>",
    ]
)


def cvat(path, tracks=CVAT_TRACKS, *, size=50, start=0, stop=49, filter="", replace=()):
    """Writes a task of CVAT; `replace` has pairs of texts."""
    text = CVAT.format(size=size, start=start, stop=stop, filter=filter, width=WIDTH, height=HEIGHT,
                       tracks=tracks)  # fmt: skip
    for old, new in replace:
        assert old in text, old
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return str(path)


def video(path, num_frames=50, fps=25.0, shape=(HEIGHT, WIDTH)):
    """Writes a video of numbered frames; returns the times of its frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return numbered_videos.write(path, np.arange(num_frames) / fps, shape=shape)


def via_project(regions, *, attributes=None, file_name="street.mp4"):
    """A project of VIA 3 as its "Save" writes it; `regions` are (seconds, xy, av)."""
    return {
        "project": {
            "pid": "__VIA_PROJECT_ID__", "rev": "__VIA_PROJECT_REV_ID__",
            "rev_timestamp": "__VIA_PROJECT_REV_TIMESTAMP__", "pname": "street",
            "creator": "VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)",
            "created": 1613558400000, "vid_list": ["1"], "data_format_version": "3.1.1",
        },
        "config": {
            "file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}},
            "ui": {"file_content_align": "center", "spatial_region_label_attribute_id": ""},
        },
        "attribute": attributes or {
            "1": {"aname": "segment", "anchor_id": "FILE1_Z2_XY0", "type": 4, "desc": "",
                  "options": {"0": "quiet"}, "default_option_id": ""},
            "2": {"aname": "action", "anchor_id": "FILE1_Z1_XY1", "type": 2, "desc": "",
                  "options": {"0": "stand", "1": "walk", "2": "wave"}, "default_option_id": ""},
            "3": {"aname": "who", "anchor_id": "FILE1_Z1_XY1", "type": 1, "desc": "",
                  "options": {}, "default_option_id": ""},
        },
        "file": {"1": {"fid": "1", "fname": file_name, "type": 4, "loc": 1, "src": ""}},
        "view": {"1": {"fid_list": ["1"]}},
        "metadata": {
            f"1_{number:08d}": {"vid": "1", "flg": 0, "z": z if isinstance(z, list) else [z],
                                "xy": xy, "av": av}
            for number, (z, xy, av) in enumerate(regions)
        },
    }  # fmt: skip


def label_studio_task(regions, *, frames_count=50, duration=2.0, labels=None, choices=None):
    """A task of Label Studio's export.

    `regions` are lists of keyframes of (frame, enabled, x, y, width, height) in percent.
    """
    results = []
    for number, sequence in enumerate(regions):
        keyframes = [
            {
                "frame": frame,
                "enabled": enabled,
                "rotation": 0,
                "x": x,
                "y": y,
                "width": width,
                "height": height,
                "time": frame * duration / frames_count,
            }
            for frame, enabled, x, y, width, height in sequence
        ]
        value = {"framesCount": frames_count, "duration": duration, "sequence": keyframes}
        shared = {"id": f"r{number}", "to_name": "video", "origin": "manual"}
        labelled = {"labels": [(labels or ["stand", "walk"])[number]]}
        results.append(
            {**shared, "from_name": "box", "type": "videorectangle", "value": {**value, **labelled}}
        )
        if choices is not None:
            results.append(
                {
                    **shared,
                    "from_name": "does",
                    "type": "choices",
                    "value": {**value, "choices": choices[number]},
                }
            )
    annotation = {
        "id": 3,
        "completed_by": 1,
        "result": results,
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2024-05-06T07:08:09.000000Z",
        "updated_at": "2024-05-06T07:18:09.000000Z",
        "lead_time": 61.2,
    }
    return {
        "id": 11, "annotations": [annotation], "predictions": [],
        "file_upload": "8f2c1a9e-street.mp4",
        "data": {"video": "/data/upload/1/8f2c1a9e-street.mp4"},
    }  # fmt: skip


def coco(annotations, *, frames=(0, 5, 10), first=0):
    """COCO's JSON of a video; `annotations` are (image, category, bbox, more fields)."""
    return {
        "info": {"description": "street"}, "licenses": [],
        "videos": [{"id": 1, "name": "street"}],
        "categories": [{"id": 3, "name": "stand", "supercategory": ""},
                       {"id": 8, "name": "walk", "supercategory": ""}],
        "images": [{"id": 100 + i, "file_name": f"street/{frame:06d}.jpg", "width": WIDTH,
                    "height": HEIGHT, "video_id": 1, "frame_id": frame + first}
                   for i, frame in enumerate(frames)],
        "annotations": [{"id": i + 1, "image_id": image, "category_id": category, "bbox": box,
                         "area": box[2] * box[3], "iscrowd": 0, "segmentation": [], **more}
                        for i, (image, category, box, more) in enumerate(annotations)],
    }  # fmt: skip


def as_json(path, content):
    """Writes JSON and returns the path."""
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def pyannot(sf=2, ef=4, boxes=((32, 24, 64, 48), (35, 24, 64, 48)), label=2):
    """`pyannot.pkl` of UCF101-24, with one video."""
    tube = {"sf": sf, "ef": ef, "label": label, "boxes": np.array(boxes, np.int16)}
    return {"Biking/v_Biking_g01_c01": {"numf": 10, "label": label, "annotations": [tube]}}


def act_tubes():
    """`multisports_GT.pkl`, with two videos."""
    tube = np.array([[3, 16, 12, 32, 36], [4, 20, 12, 36, 36]], np.float32)
    names = ["football/v_a_c001", "football/v_b_c001"]
    return {
        "labels": ["football shoot", "football pass"],
        "train_videos": [[names[0]]], "test_videos": [[names[1]]],
        "nframes": dict.fromkeys(names, 10), "resolution": dict.fromkeys(names, (HEIGHT, WIDTH)),
        "gttubes": {names[0]: {1: [tube]}, names[1]: {0: [tube, tube + [0, 8, 0, 8, 0]]}},
    }  # fmt: skip
