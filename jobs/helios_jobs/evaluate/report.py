"""What people read of an evaluation: a table, the gates, a JSON file and a contact sheet."""

import math
from pathlib import Path

import numpy as np
from PIL import Image
from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from helios_jobs.evaluate.benchmark import REFERENCE_LATENTS, Gate, Report, Row
from helios_jobs.evaluate.contact_sheet import Frames, SheetClip, contact_sheet
from helios_jobs.evaluate.heldout import HeldOut
from helios_jobs.evaluate.metrics import Estimate
from helios_jobs.evaluate.probes import Probes
from helios_jobs.train.progress import write_json

SHEET_CLIPS = 4


def render(report: Report) -> RenderableType:
    """The tables as rich shows them."""
    return Group(_figures(report), _gates(report.gates), Text(_notes(report)))


def _figures(report: Report) -> Table:
    table = Table(
        title=f"{report.n} held-out people ({report.split} split); mean ± standard error",
        title_style="bold",
        box=SIMPLE,
    )
    table.add_column("", no_wrap=True)
    sought = f"found\nof {report.rows[0].gallery}"
    for heading in ("lip-sync", "other\nsound", "similarity", sought, "Fréchet", "motion", "s/clip"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(*_cells(row, report.n), style="dim" if row.wall is None else "")
    return table


def _cells(row: Row, usual: int) -> list[str]:
    few = "" if row.similarity.n == usual else f", n = {row.similarity.n}"
    return [
        f"{row.name} ({row.how}{few})" if row.how else row.name,
        _short(row.lip_sync),
        f"{row.shuffled.value:.2f}",
        _short(row.similarity),
        _short(row.retrieval),
        f"{row.frechet:.1f}",
        f"{row.motion.value:.2f}",
        "" if row.wall is None else f"{row.wall.value:.2f}",
    ]


def _short(figure: Estimate) -> str:
    return f"{figure.value:.2f}" + ("" if math.isnan(figure.error) else f" ± {figure.error:.2f}")


def _gates(gates: list[Gate]) -> Table:
    table = Table(title="Gates", title_style="bold", box=SIMPLE, collapse_padding=True, pad_edge=False)
    table.add_column("promise")
    table.add_column("measured", justify="right")
    table.add_column("goal", justify="right")
    table.add_column("")
    for gate in gates:
        verdict = {True: "[green]met[/]", False: "[red]not met[/]", None: "[yellow]not measured[/]"}[gate.met]
        table.add_row(gate.name, "" if gate.value is None else f"{gate.value:.3f}", gate.goal, verdict)
    return table


def _notes(report: Report) -> str:
    lines = []
    if report.cost:
        wall, cpu = report.cost["wall"], report.cost["cpu"]
        lines += [
            f"Cost of the student over the guided teacher, same clips in turn (n = {wall.n}):",
            f"  wall time {wall.value:.3f} ± {wall.error:.3f}, CPU time {cpu.value:.3f} ± {cpu.error:.3f}.",
        ]
    if report.preference:
        who, sync = report.preference["similarity"], report.preference["lip_sync"]
        lines += [
            "Preference tuning, after minus before on the same people:",
            f"  similarity {who.value:+.3f} ± {who.error:.3f}, lip-sync {sync.value:+.3f} ± {sync.error:.3f}.",
        ]
    coverage = min(row.coverage for row in report.rows)
    lines += [
        f"Lip-sync judged on {coverage:.0%} of clips (the rest hardly speak). Fréchet: distance to other real clips in",
        f"frame statistics; ground truth shows its floor. Protocol {report.protocol}, {report.seconds:.0f} s.",
    ]
    return "\n".join(lines)


def metrics_of(report: Report) -> dict[str, float]:
    """Flat numbers for the tracker: `<row>/<figure>`, gates as 0 or 1."""
    numbers: dict[str, float] = {}
    for row in report.rows:
        name = row.name.replace(" ", "_").replace(",", "")
        for figure in ("lip_sync", "shuffled", "similarity", "retrieval", "motion", "wall", "cpu"):
            value: Estimate | None = getattr(row, figure)
            if value is not None:
                numbers |= {f"{name}/{figure}": value.value, f"{name}/{figure}_error": value.error}
        numbers |= {f"{name}/frechet": row.frechet, f"{name}/diversity": row.diversity}
    numbers |= {f"cost/{kind}": ratio.value for kind, ratio in report.cost.items()}
    numbers |= {f"preference/{kind}": effect.value for kind, effect in report.preference.items()}
    numbers["gates_met"] = float(sum(gate.met is True for gate in report.gates))
    numbers["gates"] = float(len(report.gates))
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def draw_sheet(report: Report, held: HeldOut, probes: Probes) -> Frames:
    """Contact sheet of the first people: reference, ground truth, teacher if there is one, student."""
    student = f"{REFERENCE_LATENTS[-1]} references"
    strips = {"ground truth": "ground truth", "guided teacher": "guided teacher", "student": student}
    shown = {label: report.clips[name] for label, name in strips.items() if name in report.clips}
    blocks = []
    for person in range(min(SHEET_CLIPS, *(len(frames) for frames in shown.values()))):
        clips = {label: frames[person] for label, frames in shown.items()}
        curves = {"truth": held.targets.mouth[person, :, 0]}
        curves |= {label: probes.mouth.curve(clip)[:, 0] for label, clip in clips.items() if label != "ground truth"}
        caption = held.targets.captions[person]
        blocks.append(
            SheetClip(
                f"Person {person + 1}", caption, held.references[person], clips, held.targets.audio[person], curves
            )
        )
    return contact_sheet(
        blocks,
        title="Held-out people: reference video and speech in, talking video out",
        subtitle="Left: the reference clip, filmed in another scene. Lines: mouth opening, as the sound asks for it "
        "and as seen in each strip (by colour).",
    )


def write_report(report: Report, held: HeldOut, probes: Probes, folder: Path) -> None:
    """Put report.json and contact-sheet.png into `folder`, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / ".contact-sheet.partial"
    Image.fromarray(np.ascontiguousarray(draw_sheet(report, held, probes))).save(draft, format="PNG")
    draft.replace(folder / "contact-sheet.png")
    write_json(folder / "report.json", report.to_json())
