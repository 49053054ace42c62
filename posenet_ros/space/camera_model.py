"""Where a pixel of an image lies in space: the lens of a calibrated camera.

Points are in the camera's optical frame (REP 103: x right, y down, z forward), in metres. A ray is
x and y at a depth of 1 metre. Source of the fields: sensor_msgs/CameraInfo; of their use:
image_geometry, which takes raw pixels to the rectified camera's rays, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from posenet_ros.errors import CalibrationError, quoted

# In pixels, of K and P: beyond them no camera is, and positions would overflow.
LEAST_FOCAL_LENGTH = 0.01
LARGEST_VALUE = 1e9
# A pixel whose ray is projected farther from it, in pixels, is one that the lens cannot see.
MOST_APART = 0.5
# Numbers of coefficients that OpenCV's models have; drivers call all of them plumb_bob.
COEFFICIENTS = {
    'plumb_bob': (4, 5, 8, 12, 14),
    'rational_polynomial': (4, 5, 8, 12, 14),
    'equidistant': (4,),
    'fisheye': (4,),
}
FISHEYE = ('equidistant', 'fisheye')


@dataclass(frozen=True)
class CameraModel:
    """A camera: its pixels' rays, and the pixels of points.

        camera = CameraModel(640, 480, focal_x=525, focal_y=525, centre_x=319.5, centre_y=239.5)
        x, y = camera.rays(np.array([[320, 240]]))[0]

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        focal_x: focal length along x, in pixels; likewise focal_y.
        centre_x: where the optical axis meets the image, in pixels; likewise centre_y.
        distortion_model: plumb_bob, rational_polynomial, equidistant or fisheye (the same).
        distortion: its coefficients, as in CameraInfo; none for an image without distortion.
        rotation: 9 values, row by row: from the camera's rays to those of the frame; none for no
            rotation.
        offset_x: of the camera from the origin of its frame, in metres; likewise offset_y. The
            right camera of a stereo pair is in the frame of the left one.

    Raises:
        CalibrationError: a value is not finite, or no camera has it.
    """

    width: int
    height: int
    focal_x: float
    focal_y: float
    centre_x: float
    centre_y: float
    distortion_model: str = 'plumb_bob'
    distortion: tuple[float, ...] = ()
    rotation: tuple[float, ...] = ()
    offset_x: float = 0.0
    offset_y: float = 0.0

    def __post_init__(self) -> None:
        for name in ('width', 'height'):
            if getattr(self, name) < 1:
                raise CalibrationError(f'Invalid {name} {getattr(self, name)}. Should be 1 or more')
        for name in ('focal_x', 'focal_y'):
            if not LEAST_FOCAL_LENGTH < getattr(self, name) < LARGEST_VALUE:
                raise CalibrationError(
                    f'Invalid {name} {getattr(self, name)}. Should be more than '
                    f'{LEAST_FOCAL_LENGTH} and less than {LARGEST_VALUE:g} pixels'
                )
        others = (self.centre_x, self.centre_y, self.offset_x, self.offset_y)
        for value in (*others, *self.distortion, *self.rotation):
            _check_value(value)
        if self.distortion:
            if self.distortion_model not in COEFFICIENTS:
                raise CalibrationError(
                    f'Invalid distortion_model {quoted(self.distortion_model)}. Should be one of '
                    + ', '.join(COEFFICIENTS)
                )
            allowed = COEFFICIENTS[self.distortion_model]
            if len(self.distortion) not in allowed:
                raise CalibrationError(
                    f'Invalid distortion of {len(self.distortion)} values. {self.distortion_model} '
                    f'has {" or ".join(map(str, allowed))}'
                )
        if len(self.rotation) not in (0, 9):
            raise CalibrationError(
                f'Invalid rotation of {len(self.rotation)} values. Should have 9, or none'
            )

    @classmethod
    def of_info(
        cls, info: Any, width: int, height: int, rectified: bool = False
    ) -> CameraModel | None:
        """The model of a sensor_msgs/CameraInfo; None if it holds no calibration.

        Args:
            info: any object with its fields.
            width: of the image, in pixels.
            height: of the image, in pixels. The calibration is that of the whole sensor; the image
                may be a region of it, and binned.
            rectified: whether the image has been rectified. Then P alone counts.

        Raises:
            CalibrationError: it is that of an image of another size, or no camera has its values.
        """
        k, p, r, d = (np.asarray(part, np.float64) for part in _parts(info))
        if not has_values(info):
            return None
        for value in (*k, *p, *r, *d):
            _check_value(float(value))
        _check_size(info, width, height)
        has_k, has_p = (m[0] > LEAST_FOCAL_LENGTH and m[i] > LEAST_FOCAL_LENGTH
                        for m, i in ((k, 4), (p, 5)))  # fmt: skip
        use_p = has_p and (rectified or not has_k)
        matrix = (p[0], p[5], p[2], p[6]) if use_p else (k[0], k[4], k[2], k[5])
        offsets = (-p[3] / p[0], -p[7] / p[5]) if has_p else (0.0, 0.0)
        roi = info.roi
        scale_x = width / (roi.width or info.width or width)
        scale_y = height / (roi.height or info.height or height)
        lens: dict[str, Any] = {}
        if not use_p and not rectified:
            kind = str(info.distortion_model) or 'plumb_bob'
            if d.any() or (len(d) and kind in FISHEYE):  # zeros of a fisheye are no pinhole
                lens = {'distortion_model': kind, 'distortion': tuple(d)}
            if r.any() and not np.array_equal(r, np.eye(3).reshape(-1)):
                lens['rotation'] = tuple(r)
        return cls(
            width,
            height,
            float(matrix[0] * scale_x),
            float(matrix[1] * scale_y),
            float((matrix[2] - roi.x_offset) * scale_x),
            float((matrix[3] - roi.y_offset) * scale_y),
            offset_x=float(offsets[0]),
            offset_y=float(offsets[1]),
            **lens,
        )

    @classmethod
    def uncalibrated(cls, width: int, height: int, width_at_one_metre: float) -> CameraModel:
        """A camera whose image shows that many metres across at a distance of 1 metre."""
        focal = width / width_at_one_metre
        return cls(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)

    @property
    def focal(self) -> float:
        """Focal length in pixels, the mean of both axes."""
        return math.sqrt(self.focal_x * self.focal_y)

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """X and y at a depth of 1 metre, from the camera: NaN where the lens cannot see.

        Args:
            pixels: (..., 2), which may lie outside the image.

        Returns:
            float64 of the same shape.
        """
        pixels = np.asarray(pixels, np.float64)
        if self.distortion:
            rays = self._undistorted(pixels.reshape(-1, 2)).reshape(pixels.shape)
        else:
            rays = (pixels - (self.centre_x, self.centre_y)) / (self.focal_x, self.focal_y)
        if self.rotation:
            turned = np.concatenate([rays, np.ones((*rays.shape[:-1], 1))], axis=-1)
            turned = turned @ np.reshape(self.rotation, (3, 3)).T
            with np.errstate(divide='ignore', invalid='ignore'):
                rays = np.where(turned[..., 2:] > 0, turned[..., :2] / turned[..., 2:], np.nan)
        return rays

    def scales(self, pixels: np.ndarray) -> np.ndarray:
        """How much a ray changes with a pixel, (..., 2) -> (...): 1 / focal on the axis.

        NaN where the lens cannot see.
        """
        if not self.distortion:
            return np.full(np.shape(pixels)[:-1], 1 / self.focal)
        steps = [self.rays(pixels + step) - self.rays(pixels - step) for step in np.eye(2) / 2]
        (a, b), (c, d) = (np.moveaxis(step, -1, 0) for step in steps)
        return np.sqrt(np.abs(a * d - b * c))

    def points(self, pixels: np.ndarray, depths: np.ndarray | float) -> np.ndarray:
        """Points of the frame, (..., 3), of pixels (..., 2) at depths (...) along z, in metres."""
        rays = self.rays(pixels)
        depths = np.broadcast_to(np.asarray(depths, np.float64), rays.shape[:-1])
        places = rays * depths[..., None] + (self.offset_x, self.offset_y)
        return np.concatenate([places, depths[..., None]], axis=-1)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of points (..., 3) of the frame; NaN for those behind the camera."""
        points = np.asarray(points, np.float64) - (self.offset_x, self.offset_y, 0.0)
        if self.rotation:
            points = points @ np.reshape(self.rotation, (3, 3))
        with np.errstate(divide='ignore', invalid='ignore'):
            rays = np.where(points[..., 2:] > 0, points[..., :2] / points[..., 2:], np.nan)
        return self._pixels(rays)

    def of_rays(self, rays: np.ndarray) -> np.ndarray:
        """Pixels of rays that another camera in the same place has, (..., 2)."""
        if not self.rotation:
            return self._pixels(rays)
        still = replace(self, offset_x=0.0, offset_y=0.0)
        return still.project(np.concatenate([rays, np.ones((*rays.shape[:-1], 1))], axis=-1))

    def _pixels(self, rays: np.ndarray) -> np.ndarray:
        if self.distortion:
            return self._distorted(rays.reshape(-1, 2)).reshape(rays.shape)
        return rays * (self.focal_x, self.focal_y) + (self.centre_x, self.centre_y)

    def _for_opencv(self) -> tuple[np.ndarray, np.ndarray]:
        """K and D."""
        matrix = [[self.focal_x, 0, self.centre_x], [0, self.focal_y, self.centre_y], [0, 0, 1]]
        return np.array(matrix, np.float64), np.array(self.distortion, np.float64)

    def _undistorted(self, pixels: np.ndarray) -> np.ndarray:
        import cv2

        if not len(pixels):
            return pixels.copy()
        matrix, distortion = self._for_opencv()
        finite = np.isfinite(pixels).all(axis=1)
        given = np.where(finite[:, None], pixels, self.centre_x)[:, None]
        if self.distortion_model in FISHEYE:
            rays = cv2.fisheye.undistortPoints(given, matrix, distortion)[:, 0]
        else:
            # In OpenCV 4 the number of iterations can only be given to another function.
            undistort = getattr(cv2, 'undistortPointsIter', cv2.undistortPoints)
            criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-8)
            rays = undistort(
                given, matrix, distortion, R=np.eye(3), P=np.eye(3), criteria=criteria
            )[:, 0]
        # Where the lens folds back, the iteration ends at another pixel.
        with np.errstate(invalid='ignore', over='ignore'):
            seen = np.abs(self._distorted(rays) - pixels).max(axis=1) <= MOST_APART
        return np.asarray(np.where((seen & finite)[:, None], rays, np.nan))

    def _distorted(self, rays: np.ndarray) -> np.ndarray:
        import cv2

        if not len(rays):
            return rays.copy()
        seen = np.isfinite(rays).all(axis=1) & (np.abs(rays).max(axis=1) < LARGEST_VALUE)
        given = np.where(seen[:, None], rays, 0.0)
        points = np.concatenate([given, np.ones((len(rays), 1))], axis=1)[:, None]
        lens = cv2.fisheye if self.distortion_model in FISHEYE else cv2
        still = np.zeros(3)
        pixels, _ = lens.projectPoints(points, still, still, *self._for_opencv())
        return np.asarray(np.where(seen[:, None], pixels[:, 0], np.nan))


def has_values(info: Any) -> bool:
    """Whether a camera_info holds a calibration at all; uncalibrated cameras publish zeros."""
    k, p, *_ = _parts(info)
    return bool(np.any(k) or np.any(p))


def _parts(info: Any) -> tuple[Sequence[float], ...]:
    """K, P, R and D; a bag of ROS 1 has them in capital letters, too."""
    return tuple(
        getattr(info, name) if hasattr(info, name) else getattr(info, name.upper())
        for name in ('k', 'p', 'r', 'd')
    )


def _check_value(value: float) -> None:
    if not abs(value) < LARGEST_VALUE:  # false for NaN
        raise CalibrationError(f'Invalid calibration: {value} is among its values')


def _check_size(info: Any, width: int, height: int) -> None:
    """Raises a CalibrationError if a camera_info is that of an image of another size."""
    roi = info.roi
    binning = max(info.binning_x, 1), max(info.binning_y, 1)
    own_width = (roi.width or info.width or width) // (binning[0] if info.width else 1)
    own_height = (roi.height or info.height or height) // (binning[1] if info.height else 1)
    if abs(own_width - width) > 1 or abs(own_height - height) > 1:
        raise CalibrationError(
            f'camera_info is that of an image of {own_width} x {own_height}; this one has '
            f'{width} x {height}'
        )
