"""What is known of the exported network without making it: its tensors, and how it is made."""

from __future__ import annotations

from posenet_ros.keypoints import NUM_EDGES, NUM_KEYPOINTS

INPUT_NAME = 'image'
ROWS_NAME = 'rows'  # of a graph that share_rows changed
# Output name and channels, in the order in which every backend returns them.
HEADS = {
    'heatmap': NUM_KEYPOINTS,
    'offset': 2 * NUM_KEYPOINTS,
    'displacement_fwd': 2 * NUM_EDGES,
    'displacement_bwd': 2 * NUM_EDGES,
}

# Part of the cache's keys: raise them when the same weights give another graph.
EXPORTER_VERSION = 2
QUANTIZER_VERSION = 3
SHARED_ROWS_VERSION = 1
