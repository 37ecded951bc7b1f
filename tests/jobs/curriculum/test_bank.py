import fcntl
import threading
from collections.abc import Callable
from pathlib import Path

import torch

from helios_jobs.curriculum.bank import fitted_codec, load_bank, locked, scene_prompt
from helios_jobs.curriculum.config import StageConfig
from helios_model.config import preset


def test_a_bank_is_rendered_once_and_found_again(config_of: Callable[..., StageConfig], stage_cache: Path) -> None:
    """The second caller reads what the first wrote; shapes are those of the documentation."""
    data, model = config_of("t2v").data, preset("micro")
    codec = fitted_codec(stage_cache, data, model)
    bank = load_bank(stage_cache, data, model, codec, rank=0)
    written = {path: path.stat().st_mtime_ns for path in stage_cache.rglob("shard-*.safetensors")}
    again = load_bank(stage_cache, data, model, codec, rank=1)
    assert torch.equal(bank.latents, again.latents)
    assert written == {path: path.stat().st_mtime_ns for path in stage_cache.rglob("shard-*.safetensors")}
    frames = 1 + (data.frames - 1) // 4
    assert bank.latents.shape == (6, 2, 16, frames, 2, 2)
    assert bank.audio.shape == (6, 2, frames, 6, 96)
    assert bank.mask.shape == (6, 2, frames, 2, 2)
    assert bank.references.shape == (6, 16, 6, 2, 2)
    assert 0 < float(bank.mask.float().mean()) < 1


def test_a_lock_waits_for_its_holder(tmp_path: Path) -> None:
    """Two processes never build the same file at once."""
    entered = threading.Event()

    def late() -> None:
        with locked(tmp_path / "x"):
            entered.set()

    with (tmp_path / "x.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        thread = threading.Thread(target=late)
        thread.start()
        assert not entered.wait(0.05)
    assert entered.wait(5)
    thread.join()


def test_a_scene_prompt_says_nothing_of_the_person() -> None:
    """Clothes, background and light stay; hair, skin, eyes and glasses go."""
    caption = (
        "a bald person, pale skin, blue eyes, no glasses, green shirt, plain teal background, cool light from the left"
    )
    assert scene_prompt(caption) == "a person, green shirt, plain teal background, cool light from the left"
