"""A Serve application as small as one can be; the driver's test deploys it by its import path."""

import os
from typing import Any

from ray import serve
from ray.serve import Application


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Greeting:
    """Answers with what it was built from."""

    def __init__(self, args: dict[str, Any]) -> None:
        self.args = args

    async def __call__(self) -> dict[str, Any]:
        return {**self.args, "tracking": os.environ["MLFLOW_TRACKING_URI"], "secret": os.environ["SECRET"]}


def build(args: dict[str, Any]) -> Application:
    application: Application = Greeting.bind(dict(args))  # type: ignore[attr-defined]  # Ray types it as the class
    return application
