"""Photos with people's own labels, in COCO's keypoint format or as Label Studio exports them.

Source: https://cocodataset.org/#format-data. Other data sets come in the same form with other
keypoints (CrowdPose, for one): those that COCO has too are taken, by their names.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posenet_ros.core.decode import Pose
from posenet_ros.core.keypoints import NUM_KEYPOINTS, SNAKE_CASE_NAMES, keypoint_of
from posenet_ros.errors import LabelError, everything_as
from posenet_ros.evaluation import label_studio

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
    height: int  # 0 where the file does not say, and nobody is labelled
    width: int
    people: tuple[Person, ...]


def read_labels(path: Path, where: Mapping[str, str] | None = None) -> list[Photo]:
    """The photos of a COCO keypoint file, or of Label Studio's export as JSON.

    Args:
        path: of the JSON.
        where: only photos whose entry has these values, such as {'split': 'val'}.

    Raises:
        LabelError: the file cannot be read or is not in that form; says where.
    """
    with everything_as(LabelError, f'{path} cannot be used'):
        return _photos(_read_json(path), path, where)


def _photos(content: Any, path: Path, where: Mapping[str, str] | None) -> list[Photo]:
    try:
        if label_studio.is_export(content):
            content = label_studio.to_coco(content)
        if not isinstance(content, dict) or not {'images', 'annotations'} <= content.keys():
            raise LabelError('it is not a COCO file: it has no "images" and "annotations"')
        label_studio.refuse_coco_export(content)
        columns = _columns(content.get('categories') or [])
        people: dict[int, list[Person]] = {}
        for annotation in content['annotations']:
            category = annotation.get('category_id', PERSON)
            if category in columns:
                person = _person(annotation, columns[category])
                people.setdefault(_id(annotation['image_id']), []).append(person)
        photos = [
            _photo(image, people)
            for image in content['images']
            if all(str(image.get(key)) == value for key, value in (where or {}).items())
        ]
    except LabelError as error:
        raise LabelError(f'{path} cannot be used: {error}') from error
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise LabelError(
            f"{path} is not in COCO's keypoint format: {type(error).__name__}: {error}"
        ) from error
    if not people and any(annotation.get('keypoints') for annotation in content['annotations']):
        raise LabelError(f'{path}: no annotation with keypoints is of a category that has them')
    if not photos:
        wanted = f' with {where}' if where else ''
        raise LabelError(f'{path} has no images{wanted}')
    if len({photo.id for photo in photos}) < len(photos):
        raise LabelError(f'{path} has two images of the same id')
    if people and not where and not any(photo.people for photo in photos):
        raise LabelError(f'{path}: no annotation belongs to any of its images')
    return photos


def read_predictions(path: Path, photos: list[Photo]) -> dict[int, list[Pose]]:
    """The poses of a COCO results file, by the photo's id; those of other photos are left out.

    Raises:
        LabelError: the file cannot be read or is not in that form.
    """
    with everything_as(LabelError, f'{path} cannot be used'):
        return _poses(_read_json(path), path, photos)


def _poses(content: Any, path: Path, photos: list[Photo]) -> dict[int, list[Pose]]:
    if not isinstance(content, list):
        raise LabelError(f'{path} is not a COCO results file: it should be a list of poses')
    poses: dict[int, list[Pose]] = {photo.id: [] for photo in photos}
    for i, result in enumerate(content):
        try:
            rows = _finite(result['keypoints']).reshape(NUM_KEYPOINTS, 3)
            score = float(_finite(result['score']))
            pose = Pose(score, rows[:, :2].copy(), rows[:, 2].copy())
            image_id = _id(result['image_id'])
            is_person = result.get('category_id', PERSON) == PERSON
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise LabelError(
                f'{path}, pose {i}: should have image_id, score, and keypoints as 17 times x, y '
                f'and a score ({type(error).__name__}: {error})'
            ) from error
        if image_id in poses and is_person:
            poses[image_id].append(pose)
    if content and not any(poses.values()):
        raise LabelError(f'{path}: none of its {len(content)} poses is of a person in these photos')
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
        if zipfile.is_zipfile(path):
            raise LabelError(f'{path} is a zip archive: unpack it, and take the JSON file inside')
        return json.loads(path.read_bytes())
    except OSError as error:
        raise LabelError(f'cannot read {path}: {error.strerror}') from error
    except ValueError as error:
        raise LabelError(f'{path} is not JSON: {error}') from error


def _id(value: Any) -> int:
    """An id as a whole number; some files write 7 as "7" or 7.0."""
    number = int(value)
    if isinstance(value, bool) or number != float(value):
        raise ValueError(f'the id {value!r} is not a whole number')
    return number


def _finite(values: Any) -> np.ndarray:
    numbers = np.asarray(values, np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError('a number is NaN, infinite or null')
    return numbers


def _photo(image: Mapping[str, Any], people: Mapping[int, list[Person]]) -> Photo:
    number, name = _id(image['id']), image['file_name']
    size = image.get('height'), image.get('width')
    unknown = size == (None, None) and number not in people
    height, width = (0, 0) if unknown else (int(image['height']), int(image['width']))
    if not isinstance(name, str) or (min(height, width) < 1 and not unknown):
        raise ValueError(f'image {number} has the name {name!r} and the size {width} x {height}')
    return Photo(number, name, height, width, tuple(people.get(number, ())))


def _columns(categories: list[Any]) -> dict[int, list[int | None]]:
    """For each category of people: which keypoint of the file is which of ours; None if missing."""
    if not categories:
        return {PERSON: list(range(NUM_KEYPOINTS))}
    columns: dict[int, list[int | None]] = {}
    for category in categories:
        if category.get('keypoints'):
            found: list[int | None] = [None] * NUM_KEYPOINTS
            for column, name in enumerate(category['keypoints']):
                number = keypoint_of(name)
                if number is not None and found[number] is None:
                    found[number] = column
            if any(column is not None for column in found):
                columns[category['id']] = found
        elif category.get('name') == 'person':
            columns[category['id']] = list(range(NUM_KEYPOINTS))
    if not columns:
        names = [str(name) for category in categories for name in category.get('keypoints') or []]
        raise LabelError(
            f'no category has any of the keypoints {", ".join(SNAKE_CASE_NAMES)}, or the name '
            f'person and no names of keypoints; there are {", ".join(names[:3]) or "none"}'
        )
    return columns


def _person(annotation: Mapping[str, Any], columns: list[int | None]) -> Person:
    keypoints = np.zeros((NUM_KEYPOINTS, 2))
    labelled = np.zeros(NUM_KEYPOINTS, bool)
    rows = _finite(annotation.get('keypoints') or []).reshape(-1, 3)
    if len(rows):
        for i, column in enumerate(columns):
            if column is not None:
                keypoints[i], labelled[i] = rows[column, :2], rows[column, 2] > 0
    box = annotation.get('bbox')
    if box is None:
        points = keypoints[labelled] if labelled.any() else np.zeros((1, 2))
        box = [*points.min(axis=0), *np.ptp(points, axis=0)]
    left, top, width, height = _finite(box).tolist()
    area = annotation.get('area')
    return Person(
        keypoints,
        labelled,
        AREA_OF_BOX * width * height if area is None else float(_finite(area)),
        (left, top, width, height),
        bool(int(annotation.get('iscrowd') or 0)),
    )
