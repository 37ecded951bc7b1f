"""Speech as log-mel features of video frames, and the frames that each latent frame listens to."""

import math
from functools import cache

import torch
from torch import Tensor

SAMPLE_RATE = 16_000
FPS = 25
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
HOP = 160
WINDOW = 400
_FFT = 512
_SPEECH_LEVEL = 0.12
_LEVEL_SECONDS = 3.0


@cache
def mel_filters(mels: int) -> Tensor:
    """Triangular filters `[mels, 257]`, equally spaced on the mel scale from 60 Hz to 7.6 kHz."""

    def mel(hz: float) -> float:
        return 2595 * math.log10(1 + hz / 700)

    edges = 700 * (10 ** (torch.linspace(mel(60), mel(7600), mels + 2, dtype=torch.float64) / 2595) - 1)
    hz = torch.linspace(0, SAMPLE_RATE / 2, _FFT // 2 + 1, dtype=torch.float64)
    rising = (hz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - hz) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0).float()


def speech_level(audio_BS: Tensor) -> Tensor:
    """Speech with its loud frames (95th percentile of the RMS) at the level that training saw.

    Sound shorter than 3 s says too little about its level, and near-silence has none: both stay as they are.
    """
    frames = audio_BS.shape[1] // SAMPLES_PER_FRAME
    if frames < _LEVEL_SECONDS * FPS:
        return audio_BS
    rms_BF = torch.unflatten(audio_BS[:, : frames * SAMPLES_PER_FRAME], 1, (frames, -1)).square().mean(-1).sqrt()
    loud_B = rms_BF.quantile(0.95, dim=1)
    gain_B = torch.where(loud_B > 0.002, _SPEECH_LEVEL / loud_B.clamp(min=1e-6), torch.ones_like(loud_B))
    return (audio_BS * gain_B[:, None]).clamp(-1, 1)


def frame_features(audio_BS: Tensor, frames: int, mels: int) -> Tensor:
    """Log-mel features of each video frame.

    Args:
        audio_BS: float32 in -1..1, 16 kHz; what is missing to `frames * 640` samples counts as silence.

    Returns:
        `[B, frames, 4 * mels]`: the four 10 ms hops of each 40 ms frame, log10 power scaled to about -1..1.
    """
    margin = (WINDOW - HOP) // 2
    missing = max(0, frames * SAMPLES_PER_FRAME - audio_BS.shape[1])
    padded = torch.nn.functional.pad(
        audio_BS[:, : frames * SAMPLES_PER_FRAME], (margin, missing + WINDOW - HOP - margin)
    )
    hops_BNW = padded.unfold(1, WINDOW, HOP) * torch.hann_window(WINDOW, device=audio_BS.device)
    power_BNF = torch.fft.rfft(hops_BNW, n=_FFT).abs().square()
    mel_BNM = power_BNF @ mel_filters(mels).to(audio_BS.device).T
    scaled_BNM: Tensor = ((mel_BNM + 1e-4).log10() + 1.0) / 2.0
    return scaled_BNM.reshape(audio_BS.shape[0], frames, -1)


def latent_tokens(features_BFA: Tensor, first_latent: int, latents: int, tokens: int) -> Tensor:
    """The audio tokens of latent frames `first_latent .. first_latent + latents - 1`.

    Latent t > 0 shows pixel frames 4t-3 .. 4t, latent 0 shows frame 0; each listens to `tokens` frames of sound centred
    on those four. Frames outside the clip are zeros.

    Returns:
        `[B, latents, tokens, A]`.
    """
    margin = (tokens - 4) // 2
    last = 4 * (first_latent + latents - 1) + tokens - margin
    padded = torch.nn.functional.pad(features_BFA, (0, 0, 3 + margin, max(0, last - features_BFA.shape[1])))
    windows_BNAL = padded.unfold(1, tokens, 4)
    return windows_BNAL[:, first_latent : first_latent + latents].transpose(2, 3)
