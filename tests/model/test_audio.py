import torch

from helios_model.audio import SAMPLES_PER_FRAME, frame_features, latent_tokens, mel_filters, speech_level


def tone(hz: float, seconds: float, level: float = 0.1) -> torch.Tensor:
    return level * torch.sin(2 * torch.pi * hz * torch.arange(int(16_000 * seconds)) / 16_000)[None]


def test_every_frame_of_video_gets_its_own_sound() -> None:
    """A click in frame 3 is loudest in the features of frame 3."""
    audio = torch.zeros(1, 8 * SAMPLES_PER_FRAME)
    audio[0, 3 * SAMPLES_PER_FRAME + 320] = 1.0
    features = frame_features(audio, 8, 24)
    assert features.shape == (1, 8, 96)
    assert int(features.mean(-1).argmax()) == 3


def test_pitch_moves_up_the_bands() -> None:
    """A higher tone is louder in higher mel bands, and every band is reached by some frequency."""
    low, high = (int(frame_features(tone(hz, 0.4), 10, 24)[0, 5, :24].argmax()) for hz in (300, 3000))
    assert low < high
    assert bool((mel_filters(24).sum(1) > 0).all())


def test_missing_sound_is_silence() -> None:
    """Features of frames beyond the sound equal those of zeros."""
    features = frame_features(tone(300, 0.08), 6, 24)
    assert torch.allclose(features[:, 4:], frame_features(torch.zeros(1, 1280), 2, 24), atol=1e-6)


def test_latent_frames_listen_around_their_pixels() -> None:
    """Latent t > 0 hears frames 4t-4 .. 4t+1, latent 0 hears frames -4 .. 1, and outside there are zeros."""
    features = torch.arange(1.0, 10.0)[None, :, None]
    tokens = latent_tokens(features, 0, 3, 6)[0, :, :, 0]
    assert tokens.tolist() == [[0, 0, 0, 0, 1, 2], [1, 2, 3, 4, 5, 6], [5, 6, 7, 8, 9, 0]]


def test_a_later_start_is_a_slice() -> None:
    """Tokens of a chunk equal the same latents' tokens of the whole."""
    features = torch.randn(1, 21, 5)
    whole = latent_tokens(features, 0, 6, 6)
    assert torch.equal(latent_tokens(features, 2, 3, 6), whole[:, 2:5])


def test_recorded_speech_is_brought_to_the_level_of_training() -> None:
    """Quiet and loud speech of some length end equal; short sound and silence stay as they are."""
    quiet, loud = speech_level(tone(300, 4, level=0.01)), speech_level(tone(300, 4, level=0.4))
    assert torch.allclose(quiet, loud, atol=1e-4)
    short, silence = tone(300, 1, level=0.01), torch.zeros(1, 64_000)
    assert torch.equal(speech_level(short), short)
    assert torch.equal(speech_level(silence), silence)
