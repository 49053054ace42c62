"""Photos with people's own labels, in COCO's keypoint format.

Source: https://cocodataset.org/#format-data. Other data sets come in the same form with other
keypoints (CrowdPose, for one): those that COCO has too are taken, by their names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posenet_ros.core.decode import Pose
from posenet_ros.core.keypoints import KEYPOINT_NAMES, NUM_KEYPOINTS
from posenet_ros.errors import LabelError

PERSON = 1  # COCO's category
# Where a data set gives no area: the share of the box that COCO's people cover, as CrowdPose and
# others take it.
AREA_OF_BOX = 0.53


@dataclass(frozen=True, eq=False)
class Person:
    """A labelled person, or a region of a crowd."""

    keypoints: np.ndarray  # float64 (17, 2): x, y in pixels of the photo
    labelled: np.ndarray  # bool (17,)
    area: float  # in square pixels of the photo
    box: tuple[float, float, float, float]  # left, top, width, height
    crowd: bool

    @property
    def counts(self) -> bool:
        """Whether this person has to be found: not a crowd, and with a labelled keypoint."""
        return not self.crowd and bool(self.labelled.any())


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo and everybody who is labelled on it."""

    id: int
    file_name: str
    height: int
    width: int
    people: tuple[Person, ...]


def read_labels(path: Path, where: Mapping[str, str] | None = None) -> list[Photo]:
    """The photos of a COCO keypoint file.

    Args:
        path: of the JSON.
        where: only photos whose entry has these values, such as {'split': 'val'}.

    Raises:
        LabelError: the file cannot be read or is not in that form; says where.
    """
    content = _read_json(path)
    if not isinstance(content, dict) or not {'images', 'annotations'} <= content.keys():
        raise LabelError(f'{path} is not a COCO file: it has no "images" and "annotations"')
    columns = _columns(path, content.get('categories', []))
    try:
        people: dict[int, list[Person]] = {}
        for annotation in content['annotations']:
            category = annotation.get('category_id', PERSON)
            if category in columns:
                person = _person(annotation, columns[category])
                people.setdefault(annotation['image_id'], []).append(person)
        photos = [
            Photo(
                int(image['id']),
                image['file_name'],
                int(image['height']),
                int(image['width']),
                tuple(people.get(image['id'], ())),
            )
            for image in content['images']
            if all(str(image.get(key)) == value for key, value in (where or {}).items())
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise LabelError(
            f"{path} is not in COCO's keypoint format: {type(error).__name__} {error}"
        ) from error
    if not photos:
        wanted = f' with {where}' if where else ''
        raise LabelError(f'{path} has no images{wanted}')
    if len({photo.id for photo in photos}) < len(photos):
        raise LabelError(f'{path} has two images of the same id')
    return photos


def read_predictions(path: Path, photos: list[Photo]) -> dict[int, list[Pose]]:
    """The poses of a COCO results file, by the photo's id; those of other photos are left out.

    Raises:
        LabelError: the file cannot be read or is not in that form.
    """
    content = _read_json(path)
    if not isinstance(content, list):
        raise LabelError(f'{path} is not a COCO results file: it should be a list of poses')
    poses: dict[int, list[Pose]] = {photo.id: [] for photo in photos}
    for i, result in enumerate(content):
        try:
            rows = np.asarray(result['keypoints'], np.float64).reshape(NUM_KEYPOINTS, 3)
            pose = Pose(float(result['score']), rows[:, :2].copy(), rows[:, 2].copy())
            image_id = result['image_id']
        except (KeyError, TypeError, ValueError) as error:
            raise LabelError(
                f'{path}, pose {i}: should have image_id, score, and keypoints as 17 times x, y '
                f'and a score ({type(error).__name__} {error})'
            ) from error
        if image_id in poses and result.get('category_id', PERSON) == PERSON:
            poses[image_id].append(pose)
    return poses


def to_results(poses: Mapping[int, list[Pose]]) -> list[dict[str, Any]]:
    """Poses by the photo's id as a COCO results file."""
    return [
        {
            'image_id': image_id,
            'category_id': PERSON,
            'score': pose.score,
            'keypoints': np.column_stack([pose.keypoints, pose.keypoint_scores]).ravel().tolist(),
        }
        for image_id, found in poses.items()
        for pose in found
    ]


def to_coco(photos: list[Photo]) -> dict[str, Any]:
    """Photos as COCO's own data set, for its tools."""
    annotations: list[dict[str, Any]] = []
    for photo in photos:
        for person in photo.people:
            visible = np.where(person.labelled, 2.0, 0.0)
            points = np.column_stack([person.keypoints * person.labelled[:, None], visible])
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': photo.id,
                    'category_id': PERSON,
                    'iscrowd': int(person.crowd),
                    'area': person.area,
                    'bbox': list(person.box),
                    'num_keypoints': int(person.labelled.sum()),
                    'keypoints': points.ravel().tolist(),
                }
            )
    return {
        'info': {},
        'images': [{'id': p.id, 'height': p.height, 'width': p.width} for p in photos],
        'annotations': annotations,
        'categories': [{'id': PERSON, 'name': 'person'}],
    }


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise LabelError(f'cannot read {path}: {error.strerror}') from error
    except ValueError as error:
        raise LabelError(f'{path} is not JSON: {error}') from error


def _columns(path: Path, categories: Any) -> dict[int, list[int | None]]:
    """For each category of people: which keypoint of the file is which of ours; None if missing."""
    ours = [''.join(f'_{c.lower()}' if c.isupper() else c for c in part) for part in KEYPOINT_NAMES]
    columns: dict[int, list[int | None]] = {}
    for category in categories:
        names = category.get('keypoints')
        if names:
            known = [name.lower().replace(' ', '_') for name in names]
            columns[category['id']] = [known.index(n) if n in known else None for n in ours]
        elif category.get('name') == 'person':
            columns[category['id']] = list(range(NUM_KEYPOINTS))
    if categories and not columns:
        raise LabelError(f'{path} has no category with keypoints, and none with the name person')
    if columns and all(column is None for column in next(iter(columns.values()))):
        raise LabelError(f'{path} has none of the keypoints {", ".join(ours)}')
    return columns or {PERSON: list(range(NUM_KEYPOINTS))}


def _person(annotation: Mapping[str, Any], columns: list[int | None]) -> Person:
    keypoints = np.zeros((NUM_KEYPOINTS, 2))
    labelled = np.zeros(NUM_KEYPOINTS, bool)
    given = annotation.get('keypoints') or []
    rows = np.asarray(given, np.float64).reshape(-1, 3)
    if len(rows):
        for i, column in enumerate(columns):
            if column is not None:
                keypoints[i], labelled[i] = rows[column, :2], rows[column, 2] > 0
    box = annotation.get('bbox')
    if box is None:
        points = keypoints[labelled] if labelled.any() else np.zeros((1, 2))
        box = [*points.min(axis=0), *np.ptp(points, axis=0)]
    left, top, width, height = (float(value) for value in box)
    area = annotation.get('area')
    return Person(
        keypoints,
        labelled,
        AREA_OF_BOX * width * height if area is None else float(area),
        (left, top, width, height),
        bool(annotation.get('iscrowd', 0)),
    )
