# SPDX-License-Identifier: Apache-2.0
"""Video-AP and frame-AP by plain loops over dictionaries, to compare the real thing with.

Nothing here is fast, clever or shared with the package: one box, one tube, one class at a time.
Boxes are [ymin, xmin, ymax, xmax]; a tube is a dictionary from keyframe to box.
"""


def box_iou(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return 0.0
    both = height * width
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def tube_iou(a, b, time_overlap):
    common = sorted(set(a) & set(b))
    if not common:
        return 0.0
    spatial = sum(box_iou(a[k], b[k]) for k in common) / len(common)
    if time_overlap == "moments":
        return spatial * len(common) / len(set(a) | set(b))
    whole = max(max(a), max(b)) - min(min(a), min(b))
    return spatial * (common[-1] - common[0]) / whole if whole else 0.0


def fill(tube):
    """Linear interpolation between the boxes of a tube."""
    keyframes = sorted(tube)
    filled = {}
    for before, after in zip(keyframes, keyframes[1:] + keyframes[-1:], strict=True):
        filled[before] = tube[before]
        for k in range(before + 1, after):
            share = (k - before) / (after - before)
            filled[k] = [
                (1 - share) * p + share * q for p, q in zip(tube[before], tube[after], strict=True)
            ]
    return filled


def ground_truth_tubes(truth, max_gap):
    """{(video, class): [tube]} of entries (video, keyframe, box, class, person)."""
    rows = {}
    for video, keyframe, box, class_id, person in truth:
        rows.setdefault((video, class_id, person), {})[keyframe] = list(box)
    tubes = {}
    for (video, class_id, _), boxes in sorted(rows.items()):
        current = {}
        for keyframe in sorted(boxes):
            if current and keyframe - max(current) > max_gap + 1:
                tubes.setdefault((video, class_id), []).append(fill(current))
                current = {}
            current[keyframe] = boxes[keyframe]
        tubes.setdefault((video, class_id), []).append(fill(current))
    for listed in tubes.values():
        listed.sort(key=min)
    return tubes


def boxes_to_link(found, linking):
    """{(video, class): {keyframe: [(score, box)]}}, highest score first, what is left out gone."""
    groups = {}
    for video, keyframe, box, class_id, score in found:
        groups.setdefault((video, class_id), {}).setdefault(keyframe, []).append((score, list(box)))
    for keyframes in groups.values():
        for keyframe, boxes in keyframes.items():
            boxes.sort(key=lambda entry: -entry[0])
            if linking.box_nms_iou:
                kept = []
                for score, box in boxes:
                    if all(box_iou(box, other) < linking.box_nms_iou for _, other in kept):
                        kept.append((score, box))
                boxes = kept
            keyframes[keyframe] = boxes[: linking.max_boxes or None]
    return groups


def link(keyframes, linking, time_overlap):
    """[(score, tube)] of one video and class, ordered by first keyframe."""
    open_tubes, done = [], []
    for keyframe in sorted(keyframes):
        left = list(keyframes[keyframe])
        done += [t for t in open_tubes if keyframe - max(t["boxes"]) > linking.max_gap + 1]
        open_tubes = [t for t in open_tubes if keyframe - max(t["boxes"]) <= linking.max_gap + 1]
        open_tubes.sort(key=lambda t: -sum(t["scores"]) / len(t["scores"]))
        for tube in open_tubes:
            last = tube["boxes"][max(tube["boxes"])]
            for entry in left:
                if box_iou(entry[1], last) >= linking.min_iou:
                    tube["boxes"][keyframe] = entry[1]
                    tube["scores"].append(entry[0])
                    left.remove(entry)
                    break
        started = [{"boxes": {keyframe: box}, "scores": [score]} for score, box in left]
        for tube in started:
            tube["number"] = len(done) + len(open_tubes)
            open_tubes.append(tube)
    tubes = [(sum(t["scores"]) / len(t["scores"]), fill(t["boxes"])) for t in done + open_tubes]
    tubes = [
        (score, tube)
        for score, tube in tubes
        if len(tube) >= linking.min_keyframes and score >= linking.min_score
    ]
    kept = []
    for score, tube in sorted(tubes, key=lambda entry: (-entry[0], min(entry[1]))):
        if not linking.tube_nms_iou or all(
            tube_iou(tube, other, time_overlap) <= linking.tube_nms_iou for _, other in kept
        ):
            kept.append((score, tube))
    return kept


def average_precision(hits, num_ground_truth, curve):
    """Of a list of True and False, the highest score first."""
    points, right = [(1.0, 0.0)], 0
    for place, hit in enumerate(hits, 1):
        right += hit
        points.append((right / place, right / num_ground_truth))
    area = 0.0
    for place in range(1, len(points)):
        width = points[place][1] - points[place - 1][1]
        if curve == "trapezoid":
            area += width * (points[place][0] + points[place - 1][0]) / 2
        else:
            area += width * max(precision for precision, _ in points[place:])
    return area


def hits(detections, ground_truth, iou, threshold, matching):
    """Whether each detection is a true positive, the highest score first.

    `detections` are (score, where, thing), `ground_truth` is {where: [thing]}.
    """
    taken, result = set(), []
    for _, where, thing in sorted(detections, key=lambda entry: -entry[0]):
        best, best_iou = None, -1.0
        for number, other in enumerate(ground_truth.get(where, [])):
            if matching == "remaining" and (where, number) in taken:
                continue
            overlap = iou(thing, other)
            if overlap > best_iou:
                best, best_iou = (where, number), overlap
        hit = best is not None and best_iou >= threshold and best not in taken
        if hit:
            taken.add(best)
        result.append(hit)
    return result


def frame_ap(truth, found, class_id, protocol):
    """AP of single boxes of a class; None without ground truth."""
    boxes = {}
    for video, keyframe, box, own, _ in truth:
        if own == class_id:
            boxes.setdefault((video, keyframe), []).append(box)
    detections = [(s, (v, k), box) for v, k, box, own, s in found if own == class_id]
    total = sum(map(len, boxes.values()))
    if not total:
        return None
    right = hits(detections, boxes, box_iou, protocol.frame_iou, protocol.matching)
    return average_precision(right, total, protocol.curve)


def video_ap(truth, found, class_id, threshold, protocol):
    """AP of tubes of a class; None without ground truth."""
    linking, time_overlap = protocol.linking, protocol.time_overlap
    tubes = {
        video: listed
        for (video, own), listed in ground_truth_tubes(truth, linking.max_gap).items()
        if own == class_id
    }
    detections = [
        (score, video, tube)
        for (video, own), keyframes in boxes_to_link(found, linking).items()
        if own == class_id
        for score, tube in link(keyframes, linking, time_overlap)
    ]
    total = sum(map(len, tubes.values()))
    if not total:
        return None
    right = hits(
        detections, tubes, lambda a, b: tube_iou(a, b, time_overlap), threshold, protocol.matching
    )
    return average_precision(right, total, protocol.curve)
