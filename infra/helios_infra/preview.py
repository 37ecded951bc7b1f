"""Runs a cell's Pulumi program against a monitor that only writes down what it is asked for.

The SDK keeps its state in globals, so each run is a process of its own (`python -m helios_infra.preview`): a cell as
JSON on standard input, one JSON object a line on standard output: `{"resource": {...}}` for each resource as it is
registered, and `{"outputs": {...}}` at the end. docs/decisions/0011-plan-by-mock-monitor.md says what that cannot see.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pulumi
from pulumi.runtime.mocks import MockCallArgs, MockMonitor, MockResourceArgs, Mocks, set_mocks

from helios.spec import Cell, from_json
from helios_infra.aws import program as aws_program
from helios_infra.contract import CellContract
from helios_infra.registration import Registration

PROGRAMS: dict[str, Callable[[Cell], CellContract]] = {"aws": aws_program.deploy}
_STACK = "pulumi:pulumi:Stack"


class Recorder(MockMonitor):
    """Answers as an engine that creates everything at once, and passes each registration on."""

    def __init__(self, mocks: Mocks, record: Callable[[Registration], None]) -> None:
        super().__init__(mocks)
        self._record = record

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802  # the engine's protocol names it
        answer = super().RegisterResource(request)  # type: ignore[no-untyped-call]  # the SDK ships it untyped
        if request.type != _STACK:
            self._record(
                Registration(
                    urn=answer.urn,
                    type=request.type,
                    name=request.name,
                    parent=request.parent,
                    custom=request.custom,
                    protect=request.protect,
                    dependencies=tuple(request.dependencies),
                    inputs=pulumi.runtime.rpc.deserialize_properties(request.object),
                )
            )
        return answer


class Invented(Mocks):
    """What a cloud would have added to a resource: ids, ARNs, and the few computed outputs the programs read."""

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        state = {"name": args.name, "arn": f"arn:aws:planned:::{args.name}", **args.inputs}
        if args.typ == "aws:eks/cluster:Cluster":
            state["endpoint"] = f"https://{args.name}.planned"
            state["certificateAuthority"] = {"data": "cGxhbm5lZA=="}
            state["identities"] = [{"oidcs": [{"issuer": f"https://oidc.planned/{args.name}"}]}]
            state["vpcConfig"] = {**args.inputs["vpcConfig"], "clusterSecurityGroupId": "sg-planned"}
        elif args.typ == "aws:ec2/launchTemplate:LaunchTemplate":
            state["latestVersion"] = 1
        elif args.typ == "aws:s3/bucket:Bucket":
            state["bucket"] = args.name
        return f"{args.name}-id", state

    def call(self, args: MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        raise LookupError(f"{args.token} would ask the cloud, and a plan asks nobody")


def run(cell: Cell, record: Callable[[Registration], None]) -> dict[str, Any]:
    """Run the program of the cell's provider once in this process; returns its outputs as made up by the monitor."""
    mocks = Invented()
    outputs: dict[str, Any] = {}
    set_mocks(mocks, project="helios", stack=cell.metadata.name, preview=False, monitor=Recorder(mocks, record))

    def declare() -> pulumi.Output[None]:
        contract = PROGRAMS[cell.spec.provider](cell)
        facts = {name: getattr(contract, name) for name in contract.__slots__}
        return pulumi.Output.all(**facts).apply(outputs.update)

    pulumi.runtime.test(declare)()  # type: ignore[no-untyped-call]  # the SDK ships it untyped
    return outputs


def main() -> None:
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints must not mix with the answers

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer, default=str) + "\n")
        answers.flush()

    cell = from_json(json.load(sys.stdin))
    assert isinstance(cell, Cell)
    outputs = run(cell, lambda registration: say({"resource": asdict(registration)}))
    say({"outputs": outputs})


if __name__ == "__main__":
    main()
