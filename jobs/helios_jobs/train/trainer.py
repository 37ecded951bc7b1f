"""Ray's TorchTrainer without the helper processes that a stage has no use for."""

from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy

_UNUSED = {"DatasetsCallback", "PlacementGroupCleanerCallback"}
"""The data set manager serves no data set here, and the cleaner outlives a controller that died while its job lives on,
which the driver ends in any case. Each is a process of 200 MB that starts before the first step, in 1.5 s of CPU."""


class FixedGang(FixedScalingPolicy):
    """As many workers as were granted, and no word of it to Ray's autoscaling coordinator.

    HELIOS decides which nodes there are. The coordinator is one process for all jobs of a Ray with the environment of
    the job that came first, so it would end with that job, under the others that then wait for it.
    """

    def _send_resource_request(self) -> None:
        return

    def _maybe_send_resource_request(self) -> None:
        return

    def _cancel_resource_request(self) -> None:
        return


class LeanTrainer(TorchTrainer):
    def _create_default_callbacks(self) -> list[Any]:
        usual: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]  # mypy sees the class of Train v1
        return [callback for callback in usual if type(callback).__name__ not in _UNUSED]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        scaling: Any = self.scaling_config
        policy = FixedGang(scaling_config=scaling)
        run: Any = super()._initialize_and_run_controller  # type: ignore[misc]  # mypy sees the class of Train v1
        return run(**{**arguments, "scaling_policy": policy})
