"""Runs models on held-out people and measures what comes out, always beside the ground truth."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from helios_jobs.evaluate.heldout import HeldOut
from helios_jobs.evaluate.metrics import (
    MIN_MOVEMENT,
    Estimate,
    diversity,
    estimate,
    frame_statistics,
    frechet,
    identity_score,
    lip_sync,
    motion_energy,
    pearson,
)
from helios_jobs.evaluate.probes import Probes, through_codec
from helios_model.pipeline import AvatarPipeline, Guidance

Frames = NDArray[np.uint8]
REFERENCE_LATENTS = (1, 2, 4)
Announce = Callable[[str, int, int], None]
"""Called with what is being done, how many are done and how many there are."""


@dataclass(frozen=True, slots=True)
class Way:
    """A model and how it is sampled; None means the bundle's own setting."""

    pipeline: AvatarPipeline
    steps: int | None = None
    guidance: Guidance | None = None
    reference_latents: int | None = None

    def describe(self) -> str:
        """Steps times passes of the network a step."""
        steps = self.steps or self.pipeline.sampling.steps
        guided = self.guidance or self.pipeline.sampling.guidance
        return f"{steps} x {3 if guided else 1}"


@dataclass(frozen=True, slots=True)
class Made:
    """Clips uint8 `[N, F, H, W, 3]` and what each cost: seconds of wall and of CPU time, `[N]`."""

    frames: Frames
    wall: NDArray[np.float64]
    cpu: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report. `frechet` and `diversity` are of the whole set and have no error estimate."""

    name: str
    how: str
    lip_sync: Estimate
    shuffled: Estimate
    coverage: float
    similarity: Estimate
    retrieval: Estimate
    gallery: int
    frechet: float
    motion: Estimate
    diversity: float
    wall: Estimate | None = None
    cpu: Estimate | None = None


def make(
    ways: dict[str, Way], held: HeldOut, count: int, *, seed: int, announce: Announce, what: str
) -> dict[str, Made]:
    """Each way's clips of the first `count` people; for each person all ways run in turn, so that costs compare."""
    results: dict[str, list[tuple[Frames, float, float]]] = {name: [] for name in ways}
    names = list(ways)
    for person in range(count):
        announce(what, person, count)
        # Who goes first alternates: neither always finds the caches warm.
        for name in names if person % 2 else reversed(names):
            results[name].append(_timed(ways[name], held, person, seed))
    return {
        name: Made(
            np.stack([frames for frames, _, _ in clips]),
            np.array([wall for _, wall, _ in clips]),
            np.array([cpu for _, _, cpu in clips]),
        )
        for name, clips in results.items()
    }


def _timed(way: Way, held: HeldOut, person: int, seed: int) -> tuple[Frames, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    chunks = way.pipeline.generate(
        held.references[person],
        held.targets.audio[person],
        prompt=held.prompts[person],
        seed=seed + person,
        steps=way.steps,
        guidance=way.guidance,
        reference_latents=way.reference_latents,
    )
    frames = np.concatenate(list(chunks))
    return frames, time.perf_counter() - wall, time.process_time() - cpu


def measure(name: str, how: str, made: Frames | Made, held: HeldOut, probes: Probes) -> Row:
    """All figures of clips of the first people of `held`, in their order."""
    frames = made.frames if isinstance(made, Made) else made
    count = len(frames)
    embedded = probes.metric.embed(frames)
    sync = lip_sync(probes.mouth.curve(frames)[..., 0], held.targets.mouth[:count, :, 0])
    # The gallery stays whole, so that few clips are still looked for among all people.
    who = identity_score(embedded, probes.metric.embed(held.gallery))
    return Row(
        name=name,
        how=how,
        lip_sync=sync.own,
        shuffled=sync.shuffled,
        coverage=sync.coverage,
        similarity=who.similarity,
        retrieval=who.retrieval,
        gallery=who.gallery,
        frechet=frechet(frame_statistics(frames), frame_statistics(held.real)),
        motion=estimate(motion_energy(frames)),
        diversity=diversity(embedded),
        wall=estimate(made.wall) if isinstance(made, Made) else None,
        cpu=estimate(made.cpu) if isinstance(made, Made) else None,
    )


@dataclass(frozen=True, slots=True)
class Gate:
    """One promise: the figure, what it must reach and whether it does; `met` is None where it could not be measured."""

    name: str
    value: float | None
    goal: str
    met: bool | None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything an evaluation found.

    Attributes:
        cost: student over teacher on the same clips: wall and cpu time (1 = equal).
        preference: effect of preference tuning on the same people, after minus before: similarity, lip-sync.
        clips: kept for the contact sheet, not part of the JSON.
    """

    protocol: str
    model: str
    split: str
    seed: int
    n: int
    rows: list[Row]
    cost: dict[str, Estimate]
    preference: dict[str, Estimate]
    gates: list[Gate]
    seconds: float
    clips: dict[str, Frames] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        document = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "clips"}
        return {name: _plain(value) for name, value in document.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return _plain(asdict(value))
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


@dataclass(frozen=True, slots=True)
class Contest:
    """What is compared: the product always, the others where there are such bundles."""

    product: Way
    teacher: Way | None = None
    before: Way | None = None
    teacher_clips: int = 32


def run_benchmark(
    contest: Contest, held: HeldOut, probes: Probes, *, model: str, split: str, seed: int, announce: Announce
) -> Report:
    """Generate, measure and judge. Deterministic but for the times."""
    started = time.perf_counter()
    torch.set_flush_denormal(True)
    count = len(held.prompts)
    target = held.targets.frames
    coded = through_codec(contest.product.pipeline.codec, target)
    rows = [
        measure("ground truth", "", target, held, probes),
        measure("ground truth through codec", "", coded, held, probes),
    ]
    _timed(contest.product, held, 0, seed)  # warm up: first calls allocate
    cost, clips = {}, {"ground truth": target}
    few = min(count, contest.teacher_clips)
    if contest.teacher is not None:
        pair = {"teacher": contest.teacher, "student": contest.product}
        made = make(pair, held, few, seed=seed, announce=announce, what="teacher and student in turn")
        rows.append(measure("guided teacher", contest.teacher.describe(), made["teacher"], held, probes))
        cost = {
            kind: estimate(getattr(made["student"], kind) / getattr(made["teacher"], kind)) for kind in ("wall", "cpu")
        }
        clips["guided teacher"] = made["teacher"].frames
    by_latents: dict[int, Row] = {}
    for latents in REFERENCE_LATENTS:
        way = Way(contest.product.pipeline, reference_latents=latents)
        made = make({"": way}, held, count, seed=seed, announce=announce, what=f"{latents} reference latents")
        plural = "s" if latents > 1 else ""
        by_latents[latents] = measure(f"student, {latents} reference{plural}", way.describe(), made[""], held, probes)
        clips[f"{latents} references"] = made[""].frames
    rows += by_latents.values()
    preference: dict[str, Estimate] = {}
    if contest.before is not None:
        way = Way(contest.before.pipeline, reference_latents=REFERENCE_LATENTS[-1])
        made = make({"": way}, held, count, seed=seed, announce=announce, what="before preference tuning")
        rows.append(measure("before preference tuning", way.describe(), made[""], held, probes))
        preference = _effect(clips[f"{REFERENCE_LATENTS[-1]} references"], made[""].frames, held, probes)
    return Report(
        protocol=probes.protocol,
        model=model,
        split=split,
        seed=seed,
        n=count,
        rows=rows,
        cost=cost,
        preference=preference,
        gates=judge(by_latents, cost),
        seconds=time.perf_counter() - started,
        clips=clips,
    )


def _effect(after: Frames, before: Frames, held: HeldOut, probes: Probes) -> dict[str, Estimate]:
    """Paired differences, after minus before, person by person."""
    gallery = probes.metric.embed(held.gallery)
    who = [(probes.metric.embed(frames) * gallery).sum(-1) for frames in (after, before)]
    truth = held.targets.mouth[..., 0]
    mouths = [probes.mouth.curve(frames)[..., 0] for frames in (after, before)]
    moving = truth.std(1) > MIN_MOVEMENT
    sync = [pearson(mouth[moving], truth[moving]) for mouth in mouths]
    return {"similarity": estimate(who[0] - who[1]), "lip_sync": estimate(sync[0] - sync[1])}


def judge(by_latents: dict[int, Row], cost: dict[str, Estimate]) -> list[Gate]:
    """The quickstart's gates on held-out people."""
    most, least = by_latents[max(by_latents)], by_latents[min(by_latents)]
    gain = most.similarity.value - least.similarity.value
    ratio = cost["wall"].value if cost else None

    def gate(name: str, value: float | None, goal: float, *, at_least: bool) -> Gate:
        sign = ">=" if at_least else "<="
        met = None if value is None else bool(value >= goal if at_least else value <= goal)
        return Gate(name, value, f"{sign} {goal:g}", met)

    return [
        gate("lip-sync correlation", most.lip_sync.value, 0.50, at_least=True),
        gate("lip-sync with other clips' sound", most.shuffled.value, 0.15, at_least=False),
        gate(f"identity retrieval@1 of {most.gallery}, 4 reference latents", most.retrieval.value, 0.45, at_least=True),
        gate("similarity, 4 minus 1 reference latents", gain, 0.15, at_least=True),
        gate("distilled over guided cost, wall time of the same clip", ratio, 0.5, at_least=False),
    ]
