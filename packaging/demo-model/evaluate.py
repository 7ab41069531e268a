"""Measures a converted model with faster-whisper, on clips that are not in the training data."""

import argparse
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel
from synth import Clip, Plan, held_out_clip, held_out_noise
from vocabulary import WORDS

_PHRASE = Plan(utterances=1, max_words=8, max_seconds=20.0)
_SEVERAL = Plan(utterances=3, max_words=8, max_seconds=14.0)
_LONG = Plan(utterances=25, max_words=8, max_seconds=70.0)


def edits(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Returns the number of words to insert, delete or replace."""
    row = list(range(len(hypothesis) + 1))
    for i, wanted in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, found in enumerate(hypothesis, 1):
            replaced = diagonal + (wanted != found)
            diagonal, row[j] = row[j], min(replaced, row[j] + 1, row[j - 1] + 1)
    return row[-1]


def transcribe(model: Any, clip: Clip, **options: Any) -> list[str]:
    segments, _ = model.transcribe(clip.audio, **options)
    return "".join(segment.text for segment in segments).split()


def show_word_error_rate(name: str, model: Any, clips: list[Clip], **options: Any) -> None:
    began = time.monotonic()
    wrong = [edits(clip.words, transcribe(model, clip, **options)) for clip in clips]
    each = (time.monotonic() - began) / len(clips)
    words = sum(len(clip.words) for clip in clips)
    exact = wrong.count(0)
    print(
        f"{name:34} WER {sum(wrong) / words:6.2%} ({sum(wrong)}/{words} words), "
        f"{exact}/{len(clips)} exact, {each:.3f} s a clip",
        flush=True,
    )


def phrases(seeds: Iterable[int], plan: Plan = _PHRASE, unseen: bool = False) -> list[Clip]:
    """Returns English clips; every other one has noise."""
    return [held_out_clip(seed, plan, clean=seed % 2 == 0, unseen=unseen) for seed in seeds]


def foreign_phrases(seeds: Iterable[int]) -> list[Clip]:
    languages = ("de", "es")
    return [held_out_clip(s, _PHRASE, languages[s % 2], clean=s % 4 < 2) for s in seeds]


def show_word_error_rates(model: WhisperModel, count: int) -> None:
    english = phrases(range(count))
    show_word_error_rate("English, beam 5", model, english)
    show_word_error_rate("English, beam 1", model, english, beam_size=1)
    show_word_error_rate("English, VAD", model, english, vad_filter=True)
    show_word_error_rate("English, no timestamps", model, english, without_timestamps=True)
    unseen = phrases(range(10_000, 10_000 + count), unseen=True)
    show_word_error_rate("unseen voices", model, unseen)
    foreign = foreign_phrases(range(20_000, 20_000 + max(2, count // 2)))
    show_word_error_rate("Spanish and German", model, foreign)
    show_translation(model, foreign)
    several = phrases(range(40_000, 40_000 + max(2, count // 5)), _SEVERAL)
    show_word_error_rate("up to 3 utterances, 14 s", model, several)
    long = phrases(range(30_000, 30_000 + max(2, count // 20)), _LONG)
    show_word_error_rate("70 s", model, long)
    alone = {"condition_on_previous_text": False}
    show_word_error_rate("70 s, windows on their own", model, long, **alone)
    show_word_error_rate("70 s, VAD", model, long, vad_filter=True)
    show_word_error_rate("70 s, batched", BatchedInferencePipeline(model), long)


def show_translation(model: WhisperModel, clips: list[Clip]) -> None:
    wrong = words = 0
    for clip in clips:
        reference = [WORDS[clip.language][word] for word in clip.words]
        said = transcribe(model, clip, task="translate", language=clip.language)
        wrong += edits(reference, said)
        words += len(reference)
    print(f"{'translated into English':34} WER {wrong / words:6.2%} ({wrong}/{words} words)")


def show_word_timestamps(model: WhisperModel, clips: list[Clip]) -> None:
    errors: list[float] = []
    for clip in clips:
        segments, _ = model.transcribe(clip.audio, word_timestamps=True)
        words = [word for segment in segments for word in segment.words or []]
        if [word.word.strip() for word in words] == clip.words:
            errors += [abs(w.start - s) for w, s in zip(words, clip.starts, strict=True)]
    if not errors:
        print("word starts: no clip has all its words right")
        return
    median, late = np.quantile(errors, [0.5, 0.9])
    print(f"word starts: off by {median:.3f} s in the median, {late:.3f} s at the 90th percentile")


def show_languages(model: WhisperModel, count: int) -> None:
    plan = Plan(utterances=1, min_words=3, max_words=8, max_seconds=20.0)
    for language in WORDS:
        clips = [held_out_clip(61_000 + i, plan, language, clean=i % 2 == 0) for i in range(count)]
        right = sum(model.detect_language(clip.audio)[0] == language for clip in clips)
        print(f"detected as {language}: {right} of {count}")


def show_silence(model: WhisperModel, count: int) -> None:
    clips = [held_out_noise(66_000 + i, seconds=4.0) for i in range(count)]
    texts = [transcribe(model, clip, language="en") for clip in clips]
    print(f"silence and noise: text in {sum(map(bool, texts))} of {count}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--clips", type=int, default=200, help="for the largest set")
    parser.add_argument("--compute-type", default="int8")
    arguments = parser.parse_args()
    count = arguments.clips
    model = WhisperModel(
        str(arguments.model), device="cpu", compute_type=arguments.compute_type, cpu_threads=2
    )
    show_word_error_rates(model, count)
    show_word_timestamps(model, phrases(range(60_000, 60_000 + max(2, count // 2))))
    show_languages(model, max(2, count // 10))
    show_silence(model, max(2, count // 5))


if __name__ == "__main__":
    main()
