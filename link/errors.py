"""What can go wrong, as one tree.

    HardpathError
    ├── ArgumentError (also a ValueError)   a value outside its range; names the field
    ├── BundleError                         a bundle that is missing, broken, tampered with or of another version
    ├── CheckpointError                     the same for a training checkpoint
    ├── ResultsError                        a results folder of another run, or one that cannot be read
    ├── RecipeError                         a recipe that cannot be used
    ├── MissingExtra                        an optional package that is not installed
    ├── OutOfMemory                         a device without memory for a graph or a batch
    ├── WorkerError                         workers of a sweep that died, again and again
    ├── RadioError                          a radio that is not there, is gone, or does not do what it is asked
    │   └── DriverUnavailable               its driver or library is not installed; says what to install
    ├── RecordingError                      a recording of samples that is missing, broken or of another type
    └── ServerError                         a server that cannot be started or reached

Every message is one line that says what to do. The domain knows no gRPC and no exit codes: `serve.messages.status` and the
`hardpath` command map this tree in one table each.
"""

from __future__ import annotations


class HardpathError(Exception):
    """Root of every error that hardpath raises on purpose."""


class ArgumentError(HardpathError, ValueError):
    """An argument outside its range.

    Attributes
    ----------
    field : str
        Name of the argument, as the caller knows it.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field
        self.message = message

    def __reduce__(self) -> tuple[type[ArgumentError], tuple[str, str]]:
        """It comes back from a worker as it was raised there."""
        return type(self), (self.field, self.message)


class BundleError(HardpathError):
    """A bundle that cannot be loaded."""


class CheckpointError(HardpathError):
    """A training checkpoint that cannot be loaded or resumed."""


class ResultsError(HardpathError):
    """A results folder that belongs to another run, or cannot be read."""


class RecipeError(HardpathError):
    """A recipe that cannot be used."""


class OutOfMemory(HardpathError):
    """A device has no memory for a graph, or for a single sample."""


class WorkerError(HardpathError):
    """Workers of a sweep died twice at one task."""


class RadioError(HardpathError):
    """A radio that is not there, is gone, or does not do what it is asked."""


class DriverUnavailable(RadioError):
    """The driver or library of a front end is not installed.

    Examples
    --------
    >>> raise DriverUnavailable("soapy", "SoapySDR", "apt-get install python3-soapysdr")
    Traceback (most recent call last):
    ...
    link.errors.DriverUnavailable: front end soapy needs SoapySDR, which is not installed: apt-get install python3-soapysdr
    """

    def __init__(self, kind: str, driver: str, remedy: str) -> None:
        super().__init__(f"front end {kind} needs {driver}, which is not installed: {remedy}")
        self.kind = kind
        self.driver = driver
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[DriverUnavailable], tuple[str, str, str]]:
        """As that of ArgumentError."""
        return type(self), (self.kind, self.driver, self.remedy)


class RecordingError(HardpathError):
    """A recording of samples that is missing, broken or of another type."""


class ServerError(HardpathError):
    """A server that cannot be started or reached."""


class MissingExtra(HardpathError):
    """An optional package that is not installed.

    Examples
    --------
    >>> raise MissingExtra("onnxruntime", "cpu")
    Traceback (most recent call last):
    ...
    link.errors.MissingExtra: onnxruntime is not installed; install it with: pip install 'hardpath[cpu]'
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; install it with: pip install 'hardpath[{extra}]'")
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        """As that of ArgumentError."""
        return type(self), (self.package, self.extra)


def require_range(field: str, value: float, low: float, high: float) -> None:
    """Raise ArgumentError unless low <= value <= high (NaN is refused)."""
    if not low <= value <= high:
        raise ArgumentError(field, f"must be in [{low:g}, {high:g}], got {value:g}")
