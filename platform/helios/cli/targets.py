"""What a user means by a bare name: a curriculum, a job, a stage (`tiny/distill`), a service, a cell."""

from collections.abc import Sequence

from helios.cli.client import Client, Object
from helios.errors import InputError, NotFoundError

ORDER = ("Curriculum", "Job", "Service", "Cell", "Tenant")


def find_work(client: Client, name: str, kinds: Sequence[str] = ORDER) -> tuple[str, Object]:
    """Return the kind and object of a name, looking in `kinds` in `ORDER`; `NAME/STAGE` gives the stage's job.

    Raises:
        NotFoundError: with the nearest name of all those kinds.
    """
    owner, slash, stage = name.partition("/")
    if slash:
        return "Job", client.get("Job", stage_job(client.get("Curriculum", owner), stage))
    wanted = [kind for kind in ORDER if kind in kinds]
    for kind in wanted:
        try:
            return kind, client.get(kind, name)
        except NotFoundError:
            continue
    known = [item["metadata"]["name"] for kind in wanted for item in client.list(kind)]
    raise NotFoundError(" or ".join(kind.lower() for kind in wanted), name, known=known)


def find_all(client: Client, names: Sequence[str], kinds: Sequence[str] = ORDER) -> list[tuple[str, Object]]:
    """Like `find_work` for several names.

    Raises:
        NotFoundError: for a single name that is not there.
        InputError: with all of several that are not there.
    """
    found: list[tuple[str, Object]] = []
    missing: list[NotFoundError] = []
    for name in names:
        try:
            found.append(find_work(client, name, kinds))
        except NotFoundError as error:
            missing.append(error)
    if len(missing) == 1:
        raise missing[0]
    if missing:
        raise InputError("; ".join(error.message for error in missing), hint="nothing was done")
    return found


def stage_job(curriculum: Object, stage: str) -> str:
    """Name of the job of a curriculum's stage.

    Raises:
        NotFoundError: the curriculum has no such stage.
        InputError: the stage has no job yet.
    """
    stages = {item["name"]: item for item in (curriculum.get("status") or {}).get("stages") or []}
    listed = [item["name"] for item in curriculum["spec"]["stages"]]
    if stage not in listed:
        raise NotFoundError("stage", stage, known=listed, hint=f"its stages are: {', '.join(listed)}")
    if not stages.get(stage, {}).get("created"):
        name = curriculum["metadata"]["name"]
        raise InputError(f"stage {stage} has not begun", hint=f"`helios explain {name}` says what it waits for")
    return str(stages[stage]["job"])


def current_stage(curriculum: Object) -> str:
    """Name of the stage that a reader of the log wants: the last that has a job, else the first."""
    begun = [item["name"] for item in (curriculum.get("status") or {}).get("stages") or [] if item.get("created")]
    return str(begun[-1] if begun else curriculum["spec"]["stages"][0]["name"])
