"""HOTA, IDF1 and id switches, of our ids and of ByteTrack and OC-SORT on the same poses.

Runs in an environment of its own, with the library trackers. JSON on standard input and output:
see for_the_library in video.py.
"""

import json
import sys

import numpy as np
import supervision as sv
from trackers import ByteTrackTracker, OCSORTTracker
from trackers.eval import (
    compute_clear_metrics,
    compute_hota_metrics,
    compute_identity_metrics,
)

MEMORY = 45  # thirtieths of a second: as long as ours


def other_ids(tracker, frames):
    """The id of each sure pose, in each frame; -1 for none."""
    result = []
    for frame in frames:
        ids = [-1] * len(frame['boxes'])
        found = tracker.update(
            sv.Detections(
                xyxy=np.array(frame['boxes'], np.float32).reshape(-1, 4),
                confidence=np.array(frame['scores'], np.float32),
                data={'row': np.arange(len(ids))},
            ),
            timestamp=frame['seconds'],
        )
        if len(found):
            for row, track_id in zip(found.data['row'], found.tracker_id, strict=False):
                ids[int(row)] = int(track_id)
        result.append(ids)
    return result


def metrics(frames, ids):
    """Of one video; `ids` are those of the columns of `similar`."""
    truth, given, similar = [], [], []
    for frame, columns in zip(frames, ids, strict=False):
        matrix = np.array(frame['similar']).reshape(len(frame['truth']), -1)
        keep = [i for i, track_id in enumerate(columns) if track_id >= 0]
        truth.append(np.array(frame['truth'], int))
        given.append(np.array([columns[i] for i in keep], int))
        similar.append(matrix[:, keep] if keep else np.zeros((len(frame['truth']), 0)))
    # Numbered from 0 without gaps, as the library wants them.
    for lists in (truth, given):
        number = {}
        for i, row in enumerate(lists):
            lists[i] = np.array([number.setdefault(int(x), len(number)) for x in row], int)
    hota = compute_hota_metrics(truth, given, similar)
    identity = compute_identity_metrics(truth, given, similar, threshold=0.5)
    clear = compute_clear_metrics(truth, given, similar, threshold=0.5)
    return {
        'HOTA': float(np.mean(hota['HOTA'])),
        'IDF1': float(identity['IDF1']),
        'IDSW': int(clear['IDSW']),
        'FP': int(clear['CLR_FP']),
    }


def in_columns(frame, ids):
    """Ids of sure poses -> ids of the columns of `similar`."""
    columns = [-1] * len(frame['ids'])
    for column, track_id in zip(frame['columns'], ids, strict=False):
        if column >= 0:
            columns[column] = track_id
    return columns


def main():
    answer = {}
    for name, videos in json.load(sys.stdin).items():
        results = {'ours': [], 'ByteTrack': [], 'OC-SORT': []}
        for frames in videos:
            results['ours'].append(metrics(frames, [frame['ids'] for frame in frames]))
            # The thresholds are for poses, whose scores are lower than those of boxes.
            for tracker, made in (
                (
                    'ByteTrack',
                    ByteTrackTracker(
                        lost_track_buffer=MEMORY,
                        high_conf_det_threshold=0.4,
                        track_activation_threshold=0.4,
                    ),
                ),
                ('OC-SORT', OCSORTTracker(lost_track_buffer=MEMORY, high_conf_det_threshold=0.3)),
            ):
                ids = other_ids(made, frames)
                columns = [in_columns(f, row) for f, row in zip(frames, ids, strict=False)]
                results[tracker].append(metrics(frames, columns))
        answer[name] = {
            tracker: {
                key: float(np.sum([r[key] for r in rows]))
                if key in ('IDSW', 'FP')
                else float(np.mean([r[key] for r in rows]))
                for key in ('HOTA', 'IDF1', 'IDSW', 'FP')
            }
            for tracker, rows in results.items()
        }
    json.dump(answer, sys.stdout)


if __name__ == '__main__':
    main()
