import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helios_jobs.evaluate import command
from helios_jobs.evaluate.ancestry import find_ancestor
from helios_jobs.evaluate.command import main
from helios_jobs.evaluate.probes import Probes
from helios_model.codec import PatchCodec
from helios_model.config import preset
from helios_model.dit import VideoRefDiT
from helios_model.pipeline import AvatarPipeline, Sampling


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, probe_codec: PatchCodec) -> Path:
    """An untrained line of three bundles: personality, distill, rlhf."""
    root = tmp_path_factory.mktemp("bundles")
    torch.manual_seed(0)
    model = VideoRefDiT(preset("tiny"))
    parent = ""
    for stage, steps in (("personality", 3), ("distill", 1), ("rlhf", 1)):
        pipeline = AvatarPipeline(model, probe_codec, Sampling(steps=steps), document={"stage": stage})
        pipeline.save_pretrained(root / stage, lineage={"stage": stage, "parent": {"bundle": parent}})
        parent = str(root / stage)
    return root


@pytest.fixture(autouse=True)
def _ready_probes(probes: Probes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "load_probes", lambda _: probes)


def test_a_job_measures_its_model_and_reports(
    bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The job form reads its config, finds teacher and predecessor by lineage, writes report, sheet and result."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model": str(bundles / "rlhf"), "n": 3, "teacherClips": 2, "teacherSteps": 2}))
    environ = {"HELIOS_CONFIG": str(config), "HELIOS_JOB_DIR": str(tmp_path)}
    assert main([], environ) == 0
    report = json.loads((tmp_path / "evaluation" / "report.json").read_text())
    names = [row["name"] for row in report["rows"]]
    assert names[:3] == ["ground truth", "ground truth through codec", "guided teacher"]
    assert names[-1] == "before preference tuning"
    assert report["rows"][0]["lip_sync"]["value"] > 0.8
    assert report["cost"]["wall"]["n"] == 2
    assert report["preference"]["similarity"]["value"] == pytest.approx(0, abs=1e-6)
    assert report["gates"][0]["met"] is False
    assert (tmp_path / "evaluation" / "contact-sheet.png").stat().st_size > 10_000
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["reason"] == "Completed"
    assert json.loads((tmp_path / "progress.json").read_text())["phase"] == "evaluating"
    assert "lip-sync" in capsys.readouterr().out


def test_without_relatives_only_the_product_is_measured(
    bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle of the first stage has no teacher: its cost gate is `not measured`, and `-o json` prints the report."""
    arguments = ["--bundle", str(bundles / "personality"), "--out", str(tmp_path / "out"), "--n", "2", "-o", "json"]
    assert main(arguments, {}) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["cost"] == {}
    assert report["gates"][-1]["met"] is None


def test_ancestors_are_found_by_stage(bundles: Path) -> None:
    """The nearest bundle of a stage up the line of parents, or None where the line ends."""
    assert find_ancestor(bundles / "rlhf", "personality") == bundles / "personality"
    assert find_ancestor(bundles / "rlhf", "rlhf") == bundles / "rlhf"
    assert find_ancestor(bundles / "personality", "distill") is None


@pytest.mark.parametrize(
    ("config", "said"), [({"n": 1}, "n: "), ({"models": "x"}, "models: "), ({"split": "train"}, "split: ")]
)
def test_a_bad_config_is_never_retried(
    config: dict[str, object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown key or a senseless value exits with 64 and says which."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    environ = {"HELIOS_CONFIG": str(tmp_path / "config.json"), "HELIOS_JOB_DIR": str(tmp_path)}
    assert main([], environ) == 64
    assert said in capsys.readouterr().out
    assert json.loads((tmp_path / "result.json").read_text())["reason"] == "InvalidConfig"


def test_an_unreachable_tracker_does_not_lose_the_report(
    bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without MLflow the job still completes with its report, and says that it was not tracked."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (tmp_path / "config.json").write_text(json.dumps({"model": str(bundles / "personality"), "n": 2}))
    environ = {
        "HELIOS_CONFIG": str(tmp_path / "config.json"),
        "HELIOS_JOB_DIR": str(tmp_path),
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    }
    assert main([], environ) == 0
    assert "not tracked" in capsys.readouterr().out
    assert json.loads((tmp_path / "result.json").read_text())["outputs"]["run_id"] == ""


def test_a_job_without_a_bundle_is_never_retried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that is not there ends the job with 64, in result.json and in the log."""
    (tmp_path / "config.json").write_text(json.dumps({"model": str(tmp_path / "none")}))
    environ = {"HELIOS_CONFIG": str(tmp_path / "config.json"), "HELIOS_JOB_DIR": str(tmp_path)}
    assert main([], environ) == 64
    assert "no bundle" in json.loads((tmp_path / "result.json").read_text())["message"]
    assert capsys.readouterr().out.count("no bundle") == 1


def test_a_full_disk_is_said_and_never_retried(bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that cannot be written ends the job with 28 and the reason."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "write_report", full)
    (tmp_path / "config.json").write_text(json.dumps({"model": str(bundles / "personality"), "n": 2}))
    environ = {"HELIOS_CONFIG": str(tmp_path / "config.json"), "HELIOS_JOB_DIR": str(tmp_path)}
    assert main([], environ) == 28
    assert json.loads((tmp_path / "result.json").read_text())["reason"] == "NoSpace"


def test_a_folder_without_a_bundle_is_an_input_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty folder exits with 2 and one sentence, no traceback."""
    assert main(["--bundle", str(tmp_path), "--out", str(tmp_path / "out")], {}) == 2
    assert "no bundle" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "content"), [("config.json", "{"), ("lineage.json", "[]"), ("config.json", '"x"')])
def test_a_damaged_bundle_is_an_input_error(
    name: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be read is named in one sentence with exit code 2, before anything is measured."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_text(content)
    assert main(["--bundle", str(tmp_path), "--out", str(tmp_path / "out")], {}) == 2
    assert name in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_evaluation_needs_no_ray() -> None:
    """Importing the evaluation and its config loads no Ray, and the config alone no torch."""
    code = (
        "import sys; import helios_jobs.evaluate.config; assert 'torch' not in sys.modules; "
        "import helios_jobs.evaluate.command; assert 'ray' not in sys.modules and 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
