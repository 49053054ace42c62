from posenet_ros.core.keypoints import KEYPOINT_NAMES, POSE_TREE, SKELETON


def test_tree_reaches_every_part_once_from_the_nose():
    assert [child for _, child in POSE_TREE if child == 0] == []
    assert sorted(child for _, child in POSE_TREE) == list(range(1, len(KEYPOINT_NAMES)))


def test_parents_come_before_their_children_so_that_one_pass_fills_a_pose():
    reached = {0}
    for parent, child in POSE_TREE:
        assert parent in reached
        reached.add(child)


def test_skeleton_is_symmetric():
    mirrored = {
        frozenset(
            KEYPOINT_NAMES.index(
                name.replace('left', '?').replace('right', 'left').replace('?', 'right')
            )
            for name in (KEYPOINT_NAMES[a], KEYPOINT_NAMES[b])
        )
        for a, b in SKELETON
    }
    assert mirrored == {frozenset(bone) for bone in SKELETON}
