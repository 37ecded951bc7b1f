"""A program that joins a Ray (RAY_ADDRESS), deploys the application of argv[1] (JSON), and does as it is told on stdin.

A process of its own, because a process that has touched Ray without the cluster's token cannot join it later.
"""

import json
import sys

import ray
from ray import serve

from helios_jobs.serve.app import build


def kill_replica() -> None:
    (found,) = [
        actor for actor in ray.util.list_named_actors(all_namespaces=True) if "REPLICA" in actor["name"].upper()
    ]
    ray.kill(ray.get_actor(found["name"], namespace=found["namespace"]), no_restart=True)


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main() -> None:
    port, args = json.loads(sys.argv[1])
    ray.init(log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build(args), name="avatar", route_prefix="/avatar")
    say("ready")
    for line in sys.stdin:
        if line.strip() == "kill":
            kill_replica()
        say("done")
    serve.shutdown()  # type: ignore[no-untyped-call]  # Ray ships it untyped


if __name__ == "__main__":
    main()
