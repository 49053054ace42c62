"""Labels and predictions in COCO's keypoint format, and in those of others."""

import json
import zipfile

import numpy as np
import pytest

from posenet_ros.core.keypoints import KEYPOINT_NAMES
from posenet_ros.errors import LabelError
from posenet_ros.evaluation.labels import (
    read_labels,
    read_predictions,
    to_coco,
    to_results,
)


def coco_file(tmp_path, **changes):
    keypoints = np.zeros((17, 3))
    keypoints[:3] = [(10, 20, 2), (12, 18, 1), (0, 0, 0)]
    content = {
        'images': [{'id': 7, 'file_name': 'a.jpg', 'height': 80, 'width': 100, 'split': 'val'}],
        'annotations': [
            {
                'image_id': 7,
                'category_id': 1,
                'keypoints': keypoints.ravel().tolist(),
                'bbox': [5, 10, 20, 40],
                'area': 300.0,
                'iscrowd': 0,
            },
            {'image_id': 7, 'category_id': 1, 'bbox': [0, 0, 50, 50], 'area': 9.0, 'iscrowd': 1},
            {'image_id': 7, 'category_id': 2, 'bbox': [0, 0, 9, 9], 'area': 9.0},  # a bicycle
        ],
        'categories': [
            {'id': 1, 'name': 'person', 'keypoints': coco_names()},
            {'id': 2, 'name': 'bicycle'},
        ],
    } | changes
    path = tmp_path / 'labels.json'
    path.write_text(json.dumps(content))
    return path


def coco_names():
    return [''.join(f'_{c.lower()}' if c.isupper() else c for c in n) for n in KEYPOINT_NAMES]


def test_people_crowds_and_unlabelled_people_are_told_apart(tmp_path):
    (photo,) = read_labels(coco_file(tmp_path))
    assert (photo.id, photo.file_name, photo.height, photo.width) == (7, 'a.jpg', 80, 100)
    person, crowd = photo.people
    assert person.counts and person.labelled.sum() == 2
    assert person.keypoints[:2].tolist() == [[10, 20], [12, 18]]
    assert (person.area, person.box) == (300, (5, 10, 20, 40))
    assert crowd.crowd and not crowd.counts


def test_other_data_sets_keypoints_are_taken_by_their_names(tmp_path):
    """As CrowdPose has them: fourteen in another order, two that COCO lacks, and no area."""
    names = ['left_shoulder', 'right_shoulder', 'head', 'neck', 'left_ankle']
    annotation = {
        'image_id': 7,
        'category_id': 1,
        'keypoints': [1, 2, 2, 3, 4, 2, 5, 6, 2, 7, 8, 2, 9, 10, 1],
        'bbox': [0, 0, 10, 20],
    }
    path = coco_file(
        tmp_path,
        annotations=[annotation],
        categories=[{'id': 1, 'name': 'person', 'keypoints': names}],
    )
    (photo,) = read_labels(path)
    (person,) = photo.people
    found = {KEYPOINT_NAMES[i] for i in np.flatnonzero(person.labelled)}
    assert found == {'leftShoulder', 'rightShoulder', 'leftAnkle'}
    assert person.keypoints[KEYPOINT_NAMES.index('leftAnkle')].tolist() == [9, 10]
    assert person.area == pytest.approx(0.53 * 200)


def test_photos_are_chosen_by_the_values_of_their_entry(tmp_path):
    path = coco_file(tmp_path)
    assert len(read_labels(path, {'split': 'val'})) == 1
    with pytest.raises(LabelError, match=r"has no images with \{'split': 'train'\}"):
        read_labels(path, {'split': 'train'})


@pytest.mark.parametrize('write', [str.upper, lambda n: n.replace('_', '-'), lambda n: n.title()])
def test_names_of_keypoints_may_be_written_in_other_ways(tmp_path, write):
    (photo,) = read_labels(coco_file(tmp_path))
    names = [write(name) for name in coco_names()]
    (same,) = read_labels(
        coco_file(tmp_path, categories=[{'id': 1, 'name': 'person', 'keypoints': names}])
    )
    assert same.people[0].labelled.tolist() == photo.people[0].labelled.tolist()


def test_what_labelling_tools_get_wrong_is_named(tmp_path):
    numbered = [{'id': 1, 'name': 'person', 'keypoints': [str(i) for i in range(17)]}]
    with pytest.raises(LabelError, match=r'no category has any of .*there are 0, 1, 2$'):
        read_labels(coco_file(tmp_path, categories=numbered))
    forklifts = [{'id': 3, 'name': 'person', 'keypoints': coco_names()}]
    with pytest.raises(LabelError, match='no annotation with keypoints is of a category'):
        read_labels(coco_file(tmp_path, categories=forklifts))
    with pytest.raises(LabelError, match="Label Studio's export as COCO makes one person of all"):
        read_labels(coco_file(tmp_path, info={'contributor': 'Label Studio'}))
    with zipfile.ZipFile(tmp_path / 'cvat.zip', 'w') as archive:
        archive.write(coco_file(tmp_path), 'annotations/person_keypoints_default.json')
    with pytest.raises(LabelError, match='is a zip archive: unpack it'):
        read_labels(tmp_path / 'cvat.zip')


def region(kind, x, y, owner=None, **value):
    """As Label Studio 1.23 exports it; percent of a picture of 200 x 100 pixels."""
    return {
        'id': f'{kind}{x}{y}',
        'type': kind,
        'original_width': 200,
        'original_height': 100,
        'image_rotation': 0,
        'value': {'x': x, 'y': y, **value},
    } | ({'parentID': owner} if owner else {})


def rectangle(x, y):
    return region('rectanglelabels', x, y, width=10.0, height=50.0, rectanglelabels=['person'])


def point(x, y, name, owner=None):
    return region('keypointlabels', x, y, owner, width=0.2, keypointlabels=[name])


def task(number, picture, *results, **annotation):
    submitted = {'was_cancelled': False, 'updated_at': '2026-11-27', 'result': list(results)}
    return {'id': number, 'annotations': [submitted | annotation], 'data': {'image': picture}}


def label_studio_file(tmp_path, *tasks):
    path = tmp_path / 'export.json'
    path.write_text(json.dumps(tasks))
    return path


def test_label_studios_people_keep_their_keypoints(tmp_path):
    one, other = rectangle(10, 20), rectangle(50, 20)
    two_people = task(
        1, '/data/upload/1/1a2b3c4d-a%20b.png', point(12, 30, 'left_eye', one['id']), other, one,
        point(52, 40, 'Left eye', other['id']),
    )  # fmt: skip
    two_people['annotations'] += [
        {'was_cancelled': False, 'updated_at': '2026-11-26', 'result': [point(1, 1, 'nose')]},
        {'was_cancelled': True, 'updated_at': '2026-11-28', 'result': []},
    ]
    nobody = task(2, '/data/local-files/?d=day_1/b.png')
    alone = task(3, 's3://bucket/day_1/c.png', point(50, 50, 'nose'))
    skipped = task(4, 'd.png', was_cancelled=True)
    photos = read_labels(label_studio_file(tmp_path, two_people, nobody, alone, skipped))
    assert [photo.file_name for photo in photos] == [
        '/data/upload/1/1a2b3c4d-a b.png', 'day_1/b.png', '/day_1/c.png',
    ]  # fmt: skip
    right, left = photos[0].people
    assert (photos[0].height, photos[0].width) == (100, 200)
    assert left.keypoints[1].tolist() == [24, 30] and left.box == (20, 20, 20, 50)
    assert right.keypoints[1].tolist() == [104, 40] and right.labelled.sum() == 1
    assert right.area == 0.53 * 20 * 50
    assert photos[1].people == () and photos[1].height == 0
    assert photos[2].people[0].keypoints[0].tolist() == [100, 50]


@pytest.mark.parametrize(
    ('results', 'message'),
    [
        ([rectangle(1, 2), rectangle(3, 4), point(1, 2, 'nose')], r"nose of a\.png .* is nobody's"),
        ([point(1, 2, 'nose'), point(3, 4, 'nose')], 'twice for one person'),
        ([point(1, 2, 'chin')], r'chin of a\.png \(task 1\) is none of nose, left_eye'),
        ([{'type': 'keypointlabels'}], 'keypoint format'),
    ],
)
def test_label_studios_points_of_nobody_are_refused(tmp_path, results, message):
    with pytest.raises(LabelError, match=message):
        read_labels(label_studio_file(tmp_path, task(1, 'a.png', *results)))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('no json', 'is not JSON'),
        ('[]', 'is not a COCO file'),
        ('{"images": [{"id": 1}], "annotations": []}', "keypoint format: KeyError: 'file_name'"),
        ('{"images": [], "annotations": []}', 'has no images'),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "dog"}]}', 'category'),
        (
            '{"images": [], "annotations": [{"image_id": 1, "keypoints": [1, 2]}]}',
            'keypoint format: ValueError',
        ),
        ('{"images": [], "annotations": [7]}', 'keypoint format: AttributeError'),
        ('{"images": [], "annotations": [], "categories": [{"name": "person"}]}', "KeyError: 'id'"),
        (
            '{"images": [], "annotations": [{"image_id": 1, "keypoints": [null, 1, 2]}]}',
            'NaN, infinite or null',
        ),
        ('{"images": [], "annotations": [{"image_id": 1.5, "keypoints": []}]}', 'the id 1.5 is'),
        (
            '{"images": [{"id": 1, "file_name": 3, "height": 4, "width": 4}], "annotations": []}',
            'has the name 3',
        ),
        (
            '{"images": [{"id": 1, "file_name": "a", "height": 0, "width": 4}], "annotations": []}',
            'the size 4 x 0',
        ),
        (
            '{"images": [{"id": 1, "file_name": "a", "height": 4, "width": 4}], "annotations": '
            '[{"image_id": 2, "keypoints": []}]}',
            'no annotation belongs to any of its images',
        ),
    ],
)
def test_other_files_are_refused_with_a_reason(tmp_path, content, message):
    path = tmp_path / 'labels.json'
    path.write_text(content)
    with pytest.raises(LabelError, match=message):
        read_labels(path)
    with pytest.raises(LabelError, match='cannot read'):
        read_labels(tmp_path / 'missing.json')


def test_predictions_come_back_as_they_were_written(tmp_path):
    photos = read_labels(coco_file(tmp_path))
    keypoints = np.column_stack([np.arange(17.0), np.arange(17.0) * 2, np.linspace(0, 1, 17)])
    results = [
        {'image_id': 7, 'category_id': 1, 'score': 0.5, 'keypoints': keypoints.ravel().tolist()},
        {'image_id': 99, 'category_id': 1, 'score': 0.5, 'keypoints': [0.0] * 51},
    ]
    path = tmp_path / 'results.json'
    path.write_text(json.dumps(results))
    poses = read_predictions(path, photos)
    assert to_results(poses) == results[:1]  # the other photo has no labels
    path.write_text('[{"image_id": 7, "score": 1, "keypoints": [1, 2, 3]}]')
    with pytest.raises(LabelError, match='pose 0: should have image_id'):
        read_predictions(path, photos)
    path.write_text('[{"image_id": "7", "score": 1, "keypoints": %s}]' % ([0] * 51))
    assert len(read_predictions(path, photos)[7]) == 1  # the same id as text
    path.write_text('[{"image_id": 8, "score": 1, "keypoints": %s}]' % ([0] * 51))
    with pytest.raises(LabelError, match='none of its 1 poses is of a person in these photos'):
        read_predictions(path, photos)
    path.write_text('{}')
    with pytest.raises(LabelError, match='should be a list of poses'):
        read_predictions(path, photos)


def test_the_data_set_for_cocos_tools_is_the_same(tmp_path):
    dataset = to_coco(read_labels(coco_file(tmp_path)))
    first, crowd = dataset['annotations']
    assert first['num_keypoints'] == 2 and first['keypoints'][:6] == [10, 20, 2, 12, 18, 2]
    assert crowd['iscrowd'] == 1 and crowd['num_keypoints'] == 0
