"""Label Studio's export as JSON, as a COCO file.

Its export as COCO makes one person of all people of a picture, and is refused. Source:
https://labelstud.io/guide/export and https://labelstud.io/tags/keypointlabels, version 1.23.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from posenet_ros.core.keypoints import NUM_KEYPOINTS, SNAKE_CASE_NAMES, keypoint_of
from posenet_ros.errors import LabelError
from posenet_ros.io.source import PHOTO_SUFFIXES

VISIBLE = 2


def is_export(content: Any) -> bool:
    """Whether a JSON file's content is such an export."""
    return isinstance(content, list) and any(
        isinstance(task, dict) and isinstance(task.get('annotations'), list) for task in content
    )


def refuse_coco_export(content: Mapping[str, Any]) -> None:
    """Raises LabelError if a COCO file is Label Studio's, with keypoints."""
    info = content.get('info')
    by_label_studio = isinstance(info, dict) and info.get('contributor') == 'Label Studio'
    if by_label_studio and any(a.get('keypoints') for a in content['annotations']):
        raise LabelError(
            "Label Studio's export as COCO makes one person of all people of a picture: export as "
            'JSON'
        )


def to_coco(tasks: list[Any]) -> dict[str, Any]:
    """The COCO file of an export. Pictures on which nobody is labelled have no size in it.

    Tasks that nobody has submitted are left out; of several annotations the newest counts.

    Raises:
        LabelError: it cannot be told whose keypoint one is, or it has another name.
        AttributeError, IndexError, KeyError, TypeError, ValueError: it is no such export.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for task in tasks:
        submitted = [a for a in task['annotations'] if not a.get('was_cancelled')]
        if not submitted:
            continue
        results = max(submitted, key=lambda a: str(a.get('updated_at')))['result']
        height, width = (
            next((result[side] for result in results if side in result), None)
            for side in ('original_height', 'original_width')
        )
        image = {'id': task['id'], 'file_name': _picture(task), 'height': height, 'width': width}
        images.append({**task['data'], **image})
        annotations += [
            {**person, 'image_id': task['id']} for person in _people(results, width, height, image)
        ]
    category = {'id': 1, 'name': 'person', 'keypoints': SNAKE_CASE_NAMES}
    return {'images': images, 'annotations': annotations, 'categories': [category]}


def _people(
    results: list[Any], width: Any, height: Any, image: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A rectangle is a person. Percentages become pixels."""
    people: dict[str | None, dict[str, Any]] = {}
    for result in results:
        if result['type'] == 'rectanglelabels':
            value = result['value']
            left, top = value['x'] * width / 100, value['y'] * height / 100
            box = [left, top, value['width'] * width / 100, value['height'] * height / 100]
            people[result['id']] = {'bbox': box}
    if not people:  # the only person of the picture
        people[None] = {}
    for person in people.values():
        person['keypoints'] = [0.0] * 3 * NUM_KEYPOINTS
    for result in results:
        if result['type'] != 'keypointlabels':
            continue
        value = result['value']
        (name,) = value['keypointlabels']
        number = keypoint_of(name)
        where = f'the keypoint {name} of {image["file_name"]} (task {image["id"]})'
        if number is None:
            raise LabelError(f'{where} is none of {", ".join(SNAKE_CASE_NAMES)}')
        owner = result.get('parentID')
        if owner not in people and len(people) == 1:
            (owner,) = people
        if owner not in people:
            raise LabelError(
                f"{where} is nobody's: drag it below its person's rectangle in the list of regions"
            )
        first = 3 * number
        keypoints = people[owner]['keypoints']
        if keypoints[first + 2]:
            raise LabelError(f'{where} is there twice for one person; people need rectangles')
        x, y = value['x'] * width / 100, value['y'] * height / 100
        keypoints[first : first + 3] = x, y, VISIBLE
    return [person for person in people.values() if 'bbox' in person or any(person['keypoints'])]


def _picture(task: Mapping[str, Any]) -> str:
    """The name of a task's picture: uploaded, in a served folder (?d=), or in an object store."""
    for text in [task['data'].get('image'), *task['data'].values()]:
        if isinstance(text, str):
            url = urlsplit(text)
            path = parse_qs(url.query).get('d', [unquote(url.path)])[0]
            if PurePosixPath(path).suffix.lower() in PHOTO_SUFFIXES:
                return path
    raise LabelError(f'task {task["id"]} has no picture in its data')
