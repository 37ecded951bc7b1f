import fcntl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from helios.errors import NoSpaceError
from helios_jobs.curriculum import bank as module
from helios_jobs.curriculum.bank import (
    bank_digest,
    build_once,
    build_together,
    code_digest,
    fitted_codec,
    load_bank,
    scene_prompt,
)
from helios_jobs.curriculum.config import DataConfig, StageConfig
from helios_jobs.data.world import VOCABULARY, caption, identity, scene
from helios_model.codec import PatchCodec
from helios_model.config import preset
from helios_model.text import tokenize


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


def test_a_file_in_the_making_is_waited_for(tmp_path: Path) -> None:
    """Two processes never build the same file at once; who does not wait leaves it to the other."""
    entered = threading.Event()
    path = tmp_path / "x.safetensors"

    def make() -> dict[str, torch.Tensor]:
        entered.set()
        return {"x": torch.zeros(1)}

    with path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        build_once(path, make, wait=False)
        thread = threading.Thread(target=build_once, args=(path, make))
        thread.start()
        assert not entered.wait(0.05)
    assert entered.wait(5)
    thread.join()
    assert path.exists()


def test_ranks_pass_by_what_another_is_at(tmp_path: Path) -> None:
    """While one rank is busy with a file, another that comes to it goes on to those behind it."""
    paths = [tmp_path / str(number) for number in range(4)]
    made: list[str] = []
    first_begun, others_done = threading.Event(), threading.Event()

    def make(name: str, *, last: bool = False) -> dict[str, torch.Tensor]:
        made.append(name)
        if last:
            first_begun.set()
            assert others_done.wait(20)
        if len(made) == len(paths):
            others_done.set()
        return {"x": torch.zeros(1)}

    busy = {path: (lambda path=path: make(path.name, last=path is paths[0])) for path in paths}
    threads = [threading.Thread(target=build_together, args=(busy,), kwargs={"rank": rank}) for rank in (0, 3)]
    threads[0].start()
    assert first_begun.wait(20)
    threads[1].start()
    for thread in threads:
        thread.join(30)
    assert sorted(made) == ["0", "1", "2", "3"]
    assert all(path.exists() for path in paths)


def test_a_bank_is_named_by_all_that_decides_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other settings, another codec or another version of the world's code: another bank and another codec file."""
    data, model = DataConfig(identities=4, codec_clips=2), preset("micro")
    codec, other = PatchCodec(model.channels), PatchCodec(model.channels)
    other.image_mean += 1
    names = [
        bank_digest(data, model, codec),
        bank_digest(data.model_copy(update={"scenes": 3}), model, codec),
        bank_digest(data, preset("tiny"), codec),
        bank_digest(data, model, other),
    ]
    fitted_codec(tmp_path, data, model)
    fitted_codec(tmp_path, data.model_copy(update={"scenes": 3}), model)
    code_digest.cache_clear()
    monkeypatch.setattr(module, "world_digest", lambda: "another world")
    names.append(bank_digest(data, model, codec))
    fitted_codec(tmp_path, data, model)
    code_digest.cache_clear()
    assert len(set(names)) == len(names)
    assert len(list(tmp_path.glob("codec-*.safetensors"))) == 3


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What safetensors says in words becomes the error that ends a job for good."""

    def full(_: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(NoSpaceError, match=r"to write x\.safetensors"):
        build_once(tmp_path / "x.safetensors", lambda: {"x": torch.zeros(1)})
    assert [path.name for path in tmp_path.iterdir()] == ["x.lock"]


def test_a_scene_prompt_says_nothing_of_the_person() -> None:
    """Clothes, background and light stay; hair, skin, eyes and glasses go."""
    caption = (
        "a bald person, pale skin, blue eyes, no glasses, green shirt, plain teal background, cool light from the left"
    )
    assert scene_prompt(caption) == "a person, green shirt, plain teal background, cool light from the left"


def test_every_word_of_the_world_has_a_number_of_its_own() -> None:
    """No two words of the captions share a row of the word table, and the longest caption fits whole."""
    for name in ("tiny", "micro"):
        model = preset(name)
        numbers = tokenize(VOCABULARY, buckets=model.words.buckets, length=model.words.tokens)[:, 1]
        assert len(set(numbers.tolist())) == len(VOCABULARY)
        captions = [caption(identity("train", number), scene("train", number, 0)) for number in range(200)]
        assert max(len(words.split()) for words in captions) < model.words.tokens
