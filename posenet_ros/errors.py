"""Everything that posenet_ros raises on purpose. Each message says what to do about it."""


class PoseNetError(Exception):
    """Base of all errors raised here."""


class ConfigError(PoseNetError, ValueError):
    """An option has an invalid value."""


class CheckpointError(PoseNetError):
    """Weights could not be found, fetched or trusted."""


class GraphError(PoseNetError):
    """A tfjs graph cannot be read or converted."""


class BackendError(PoseNetError):
    """A backend is not available here, or failed while it ran."""


class ImageError(PoseNetError, ValueError):
    """An image cannot be used as it is."""


class NoDeviceError(BackendError):
    """The backend has no device to run on; the message says what is missing."""


class DependencyError(PoseNetError):
    """A package that is needed for this is not installed; the message says which, and where."""


class LabelError(PoseNetError):
    """A file of labels or predictions that cannot be used."""


def reason(error: BaseException) -> str:
    """Why something failed, for a message that names it already: without the system's number."""
    return str(getattr(error, 'strerror', None) or error)
