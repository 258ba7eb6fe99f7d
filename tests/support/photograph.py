"""A picture that is as hard to decode and to resize as a photograph."""

import numpy as np
from PIL import Image


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Much detail on every scale, as in a photograph: noise whose amplitude falls with its frequency."""
    draw = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1
    shared, own = draw.normal(size=(1, height, width)), draw.normal(size=(3, height, width))
    waves = np.fft.irfft2(np.fft.rfft2(0.8 * shared + 0.4 * own) / frequency, s=(height, width))
    levels = 128 + 50 * (waves - waves.mean()) / waves.std()
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy())
