"""Which images of a camera are looked at, and which part of them. Needs no ROS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from posenet_ros.core.closeups import Closeup
from posenet_ros.core.decode import Pose
from posenet_ros.errors import ConfigError, ImageError

EARLY = 0.25  # of a period: so much too early an image is taken, since no camera is punctual


class RateLimit:
    """Chooses images, evenly spaced, as they come: at most so many a second in the mean."""

    def __init__(self) -> None:
        self._due = 0.0

    def allows(self, now: float, max_rate: float) -> bool:
        """Whether an image that comes now is taken.

        Args:
            now: in seconds, of a clock that never jumps.
            max_rate: images a second; 0 takes all.
        """
        if max_rate <= 0:
            return True
        period = 1 / max_rate
        if now > self._due + period or now < self._due - 2 * period:  # a pause, or another rate
            self._due = now
        elif now < self._due - EARLY * period:
            return False
        self._due += period
        return True


@dataclass(frozen=True)
class Region:
    """A part of an image, in pixels."""

    left: int
    top: int
    width: int
    height: int

    @staticmethod
    def of(numbers: Sequence[int]) -> Region | None:
        """The region that a parameter describes; None for the whole image: four zeros.

        Raises:
            ConfigError: they describe none.
        """
        if not any(numbers):
            return None
        if len(numbers) != 4 or min(numbers) < 0 or min(numbers[2:]) == 0:
            raise ConfigError(
                f'Invalid region {list(numbers)}. Should be left, top, width and height in pixels, '
                'or 0, 0, 0, 0 for the whole image'
            )
        return Region(*numbers)

    def view(self, image: np.ndarray) -> np.ndarray:
        """The part of an image that lies in the region: a view, (h, w, 3).

        Raises:
            ImageError: nothing of the image does.
        """
        height, width = image.shape[:2]
        if self.left >= width or self.top >= height:
            raise ImageError(
                f'region {self.left}, {self.top}, {self.width}, {self.height} lies outside: the '
                f'image has {width} x {height} pixels'
            )
        return image[self.top : self.top + self.height, self.left : self.left + self.width]

    def poses_in_image(self, poses: Sequence[Pose], width: int, flipped: bool) -> list[Pose]:
        """Poses in pixels of the view -> in pixels of the image.

        Args:
            poses: to convert.
            width: of the image.
            flipped: both are mirrored.
        """
        left = self.left
        if flipped:
            left = width - min(self.left + self.width, width)
        return [replace(pose, keypoints=np.add(pose.keypoints, (left, self.top))) for pose in poses]

    def closeups_in_image(self, closeups: Sequence[Closeup]) -> list[Closeup]:
        """Close-ups in pixels of the view -> in pixels of the image."""
        return [
            closeup._replace(
                left=closeup.left + self.left,
                right=closeup.right + self.left,
                top=closeup.top + self.top,
                bottom=closeup.bottom + self.top,
            )
            for closeup in closeups
        ]
