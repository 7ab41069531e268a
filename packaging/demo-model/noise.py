"""Noise of several colours, tones, clicks, and the distortion of a bad microphone."""

import math

import numpy as np
from espeak import Audio
from numpy.typing import NDArray
from vocabulary import SAMPLE_RATE

_COLOURS = ["white", "pink", "brown", "hum"]
_COLOUR_SHARES = [0.35, 0.3, 0.2, 0.15]
_TINY = 1e-9  # avoids a division by zero for silence


def noise(rng: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """Returns noise of arbitrary loudness; the caller scales it."""
    colour = _COLOURS[rng.choice(4, p=_COLOUR_SHARES)]
    if colour == "hum":
        return _hum(rng, samples)
    white = rng.standard_normal(samples)
    if colour == "white":
        return white
    spectrum = np.fft.rfft(white)
    frequency = np.maximum(np.arange(len(spectrum)), 1.0)
    slope = 0.5 if colour == "pink" else 1.0
    return np.fft.irfft(spectrum / frequency**slope, samples) * math.sqrt(samples)


def degrade(rng: np.random.Generator, audio: NDArray[np.float64], speech_rms: float) -> Audio:
    """Adds noise (12 to 45 dB below the speech) and a narrow band at random; any gain, 16 bits."""
    if rng.random() < 0.65:
        added = noise(rng, len(audio))
        added *= 1 / (np.sqrt((added**2).mean()) + _TINY)
        audio = audio + added * speech_rms * 10 ** (-rng.uniform(12, 45) / 20)
    if rng.random() < 0.12:
        spectrum = np.fft.rfft(audio)
        cutoff = int(rng.uniform(3300, 6000) / (SAMPLE_RATE / 2) * len(spectrum))
        spectrum[cutoff:] *= 10 ** (-rng.uniform(20, 60) / 20)
        audio = np.fft.irfft(spectrum, len(audio))
    return _any_gain(rng, audio, 0.05, 0.97)


def non_speech(rng: np.random.Generator, seconds: float) -> Audio:
    samples = int(seconds * SAMPLE_RATE)
    kind = rng.random()
    if kind < 0.3:
        return np.zeros(samples, np.float32)
    if kind < 0.75:
        audio = noise(rng, samples)
    elif kind < 0.9:
        audio = _tone(rng, samples)
    else:
        audio = _clicks(rng, samples, seconds)
    return _any_gain(rng, audio, 0.0005, 0.9)


def to_16_bits(audio: NDArray[np.float64]) -> Audio:
    """Returns the samples as they are read from a 16-bit file."""
    return (np.round(audio * 32767) / 32768).astype(np.float32)


def _any_gain(
    rng: np.random.Generator, audio: NDArray[np.float64], lowest: float, highest: float
) -> Audio:
    """Scales to a peak drawn from the range, uniformly in decibels."""
    peak = np.exp(rng.uniform(np.log(lowest), np.log(highest)))
    return to_16_bits(audio / (np.abs(audio).max() + _TINY) * peak)


def _hum(rng: np.random.Generator, samples: int) -> NDArray[np.float64]:
    time = np.arange(samples) / SAMPLE_RATE
    mains = rng.choice([50, 60, 100, 120])
    hum = np.zeros(samples)
    for harmonic in (1, 2, 3):
        hum += np.sin(2 * np.pi * mains * harmonic * time + rng.random() * 6) / harmonic
    return hum + 0.05 * rng.standard_normal(samples)


def _tone(rng: np.random.Generator, samples: int) -> NDArray[np.float64]:
    time = np.arange(samples) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * np.exp(rng.uniform(np.log(100), np.log(4000))) * time)
    if rng.random() < 0.5:  # beeping
        tone *= np.sin(2 * np.pi * rng.uniform(0.3, 4) * time) > 0
    if rng.random() < 0.5:
        tone = tone + 0.01 * rng.standard_normal(samples)
    return np.asarray(tone, np.float64)


def _clicks(rng: np.random.Generator, samples: int, seconds: float) -> NDArray[np.float64]:
    audio = 0.002 * rng.standard_normal(samples)
    audio[rng.integers(0, samples, size=max(1, int(seconds * 2)))] = 1
    return audio
