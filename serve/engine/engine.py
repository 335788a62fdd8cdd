"""The data plane: arrays in, arrays out. Knows no gRPC, so that every protocol in front of it gives the same answers.

    Engine ──by name──> Model ──operation──> Batcher ──> Program ──> transmitter, channel, receiver

All coroutines belong to one event loop.
"""

from __future__ import annotations

from serve.engine.errors import ModelNotFound
from serve.engine.means import Means
from serve.engine.model import Model


class Engine:
    """The models of a server, by name.

    Parameters
    ----------
    means : Means
    """

    def __init__(self, means: Means) -> None:
        self.means = means
        self._models: dict[str, Model] = {}

    def model(self, name: str = "") -> Model:
        """The version of a model that answers now; where there is one model it need not be named.

        Raises
        ------
        ModelNotFound
            If there is none of that name, or several and none is named.
        """
        model = self._models.get(name)
        if model is not None:
            return model
        if not name and len(self._models) == 1:
            return next(iter(self._models.values()))
        raise ModelNotFound(name, self._models)

    @property
    def models(self) -> tuple[Model, ...]:
        """All, by name."""
        return tuple(self._models[name] for name in sorted(self._models))

    def put(self, model: Model) -> Model | None:
        """Have a model answer from now on, and give back the one that it replaces; what that has begun it finishes."""
        before = self._models.get(model.name)
        self._models[model.name] = model
        return before
