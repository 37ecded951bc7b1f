"""Ray's TorchTrainer without the helper processes that a stage has no use for."""

from typing import Any

from ray.train.torch import TorchTrainer

_UNUSED = {"DatasetsCallback", "PlacementGroupCleanerCallback"}
"""The data set manager serves no data set here, and the cleaner outlives a controller that died while its job lives on,
which the driver ends in any case. Each is a process of 200 MB that starts before the first step, in 1.5 s of CPU."""


class LeanTrainer(TorchTrainer):
    def _create_default_callbacks(self) -> list[Any]:
        usual: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]  # mypy sees the class of Train v1
        return [callback for callback in usual if type(callback).__name__ not in _UNUSED]
