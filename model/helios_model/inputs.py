"""What may be given to the network: every refusal names the tensor, what came and what was expected."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from helios_model.config import ModelConfig, WordTable
from helios_model.streams import PREFIX_FRAMES, REFERENCE_TIME

if TYPE_CHECKING:
    from helios_model.dit import ReferenceCache


def check_latents(name: str, z_BCTHW: Tensor, config: ModelConfig, *, limit: int = REFERENCE_TIME) -> None:
    """Latents `[B, C, T, H, W]` of the config's channels, whose sides are whole patches, T at most `limit`.

    Raises:
        ValueError: they are not.
    """
    shape, patch = list(z_BCTHW.shape), config.patch
    if z_BCTHW.ndim != 5 or not z_BCTHW.is_floating_point():
        raise ValueError(f"{name} is floating-point [B, C, T, H, W], not {z_BCTHW.dtype} {shape}")
    if shape[1] != config.channels:
        raise ValueError(f"{name} has {shape[1]} channels, this network ({config.preset}) {config.channels}")
    if 0 in shape:
        raise ValueError(f"{name} is empty: {shape}")
    if shape[3] % patch or shape[4] % patch:
        raise ValueError(f"{name} is {shape[3]} x {shape[4]} latents, which are no whole patches of {patch} x {patch}")
    if shape[2] > limit:
        raise ValueError(f"{name} has {shape[2]} latent frames, rotary positions reach for {limit}")


def check_noise_and_text(z_BCTHW: Tensor, sigma_B: Tensor, text: Tensor, config: ModelConfig) -> None:
    """A noise level and a prompt for each sample.

    Raises:
        ValueError: there is not.
    """
    batch = z_BCTHW.shape[0]
    if sigma_B.shape != (batch,):
        raise ValueError(f"sigma_B is [{batch}], one for each of z_BCTHW, not {list(sigma_B.shape)}")
    if isinstance(config.text, WordTable):
        if text.dtype != torch.int64 or text.shape != (batch, config.text.tokens):
            raise ValueError(f"text is int64 [{batch}, {config.text.tokens}], not {text.dtype} {list(text.shape)}")
    elif text.ndim != 3 or text.shape[0] != batch or text.shape[2] != config.text.dim:
        raise ValueError(f"text is features [{batch}, tokens, {config.text.dim}], not {text.dtype} {list(text.shape)}")
    elif text.shape[1] == 0:
        raise ValueError(f"text is features of at least 1 token, not {list(text.shape)}")


def check_companions(
    z_BCTHW: Tensor,
    prefix_BCTHW: Tensor | None,
    anchor_BCHW: Tensor | None,
    anchor_keep_BK: Tensor | None,
    config: ModelConfig,
) -> None:
    """The prefix and the anchor have the latents' size.

    Raises:
        ValueError: one has not.
    """
    batch, channels, _, height, width = z_BCTHW.shape
    if prefix_BCTHW is not None:
        expected = (batch, channels, prefix_BCTHW.shape[2] if prefix_BCTHW.ndim == 5 else 1, height, width)
        if prefix_BCTHW.shape != expected:
            raise ValueError(f"prefix_BCTHW is {list(prefix_BCTHW.shape)}, z_BCTHW {list(z_BCTHW.shape)}")
        if not 1 <= prefix_BCTHW.shape[2] <= PREFIX_FRAMES:
            raise ValueError(f"prefix_BCTHW has {prefix_BCTHW.shape[2]} latent frames, a prefix 1 to {PREFIX_FRAMES}")
    if anchor_BCHW is not None and anchor_BCHW.shape != (batch, channels, height, width):
        raise ValueError(f"anchor_BCHW is {list(anchor_BCHW.shape)}, expected {[batch, channels, height, width]}")
    if anchor_keep_BK is not None:
        if anchor_BCHW is None:
            raise ValueError("anchor_keep_BK chooses tokens of an anchor, and anchor_BCHW is not given")
        check_kept("anchor_keep_BK", anchor_keep_BK, batch, height * width // config.patch**2)


def check_sound(name: str, audio_BTLK: Tensor | None, frames: int, batch: int, config: ModelConfig) -> None:
    """Sound has the config's tokens and features for each of the stream's latent frames.

    Raises:
        ValueError: it has not, or the network has no ears.
    """
    if audio_BTLK is None:
        return
    if config.audio is None:
        raise ValueError(f"{name} was given, and this network ({config.preset}) has no audio input")
    expected = [batch, frames, config.audio.tokens, config.audio.dim]
    if audio_BTLK.ndim == 4 and audio_BTLK.shape[1] != frames:
        raise ValueError(f"{name} has {audio_BTLK.shape[1]} latent frames, the video {frames}")
    if list(audio_BTLK.shape) != expected:
        raise ValueError(f"{name} is {list(audio_BTLK.shape)}, expected {expected}")


def check_motion(
    motion_BTM: Tensor | None, motion_sigma_B: Tensor | None, z_BCTHW: Tensor, config: ModelConfig
) -> None:
    """A motion vector of the config's length for each latent frame of `z_BCTHW`, and a noise level for each sample.

    Raises:
        ValueError: it is not, or the network has no motion stream.
    """
    if motion_BTM is None:
        check_absent("motion_BTM", motion_sigma_B=motion_sigma_B)
        return
    check_each("motion_sigma_B", motion_sigma_B, z_BCTHW.shape[0])
    if config.motion is None:
        raise ValueError(f"motion_BTM was given, and this network ({config.preset}) has no motion stream")
    expected = [z_BCTHW.shape[0], z_BCTHW.shape[2], config.motion.dim]
    if list(motion_BTM.shape) != expected:
        raise ValueError(f"motion_BTM is {list(motion_BTM.shape)}, expected {expected}")


def check_kept(name: str, keep_BK: Tensor | None, batch: int, tokens: int) -> None:
    """Ascending int64 indices of at least one token, the same number for each sample.

    Raises:
        ValueError: they are not.
    """
    if keep_BK is None:
        return
    if keep_BK.ndim != 2 or keep_BK.dtype != torch.int64 or keep_BK.shape[0] != batch or keep_BK.shape[1] == 0:
        raise ValueError(f"{name} is int64 [{batch}, K] with K > 0, not {keep_BK.dtype} {list(keep_BK.shape)}")
    ascending, least, most = bool((keep_BK.diff(dim=1) > 0).all()), int(keep_BK.min()), int(keep_BK.max())
    if not ascending or least < 0 or most >= tokens:
        came = f"{least} to {most}" if ascending else "indices in another order or twice"
        raise ValueError(f"{name} holds ascending indices of 0 to {tokens - 1}, each once, not {came}")


def check_reference(cache: "ReferenceCache | None", batch: int, config: ModelConfig, ranks: int = 1) -> None:
    """Keys and values of every layer, for the batch and a rank's share of the heads.

    Raises:
        ValueError: they are of another network or another batch.
    """
    if cache is None:
        return
    if batch % cache.copies:
        raise ValueError(f"reference is for {cache.copies} copies of a batch, z_BCTHW is a batch of {batch}")
    batch //= cache.copies
    if len(cache.layers) != config.layers:
        raise ValueError(f"reference holds {len(cache.layers)} layers, this network ({config.preset}) {config.layers}")
    keys = cache.layers[0].k_BMHD
    heads = config.heads // ranks
    if keys.ndim != 4 or (keys.shape[0], *keys.shape[2:]) != (batch, heads, config.head_dim):
        here = "" if ranks == 1 else f" (a share of {config.heads} heads, over {ranks} ranks)"
        expected = f"[{batch}, tokens, {heads}, {config.head_dim}]{here}"
        raise ValueError(f"reference is for {list(keys.shape)}, expected {expected}")
    for index, pair in enumerate(cache.layers):
        for part in pair:
            if part.shape != keys.shape or part.dtype != keys.dtype:
                raise ValueError(
                    f"reference layer {index} is {part.dtype} {list(part.shape)}, "
                    f"layer 0 {keys.dtype} {list(keys.shape)}"
                )


def check_absent(owner: str, **options: Tensor | None) -> None:
    """Nothing qualifies an input that is not given.

    Raises:
        ValueError: something does.
    """
    for name, option in options.items():
        if option is not None:
            raise ValueError(f"{name} came as {list(option.shape)}, and {owner} is not given")


def check_each(name: str, value_B: Tensor | None, batch: int) -> None:
    """One number for each sample, where there are any.

    Raises:
        ValueError: there are others.
    """
    if value_B is not None and value_B.shape != (batch,):
        raise ValueError(f"{name} is [{batch}], one for each sample, not {list(value_B.shape)}")
