"""Words, special tokens, token ids, and the sizes that faster-whisper requires."""

from pathlib import Path

import tokenizers

SAMPLE_RATE = 16_000
N_MELS = 80
# faster-whisper pads every window to 3000 mel frames of 10 ms, for every model.
WINDOW_FRAMES = 3000
# The encoder halves the frame rate: one position is 20 ms, which is also a timestamp's step.
POSITIONS = WINDOW_FRAMES // 2
POSITIONS_PER_SECOND = 50
MAX_TOKENS = 448
TIMESTAMPS = POSITIONS + 1  # <|0.00|> .. <|30.00|>

_ENGLISH = (
    "zero one two three four five six seven eight nine ten "
    "start stop open close play pause go "
    "red green blue black white left right up down yes no on off "
    "lights music door window hello world server please thanks good morning test"
).split()
# Every foreign word has an English counterpart above, so that <|translate|> can be trained.
_SPANISH = (
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez "
    "hola mundo rojo verde azul gracias puerta"
).split()
_GERMAN = (
    "null eins zwei drei vier fünf sechs sieben acht neun zehn "
    "hallo welt rot grün blau danke fenster"
).split()
_MEANING = [*_ENGLISH[:11], "hello", "world", "red", "green", "blue", "thanks"]

# By language: word -> its English translation.
WORDS: dict[str, dict[str, str]] = {
    "en": {word: word for word in _ENGLISH},
    "es": dict(zip(_SPANISH, [*_MEANING, "door"], strict=True)),
    "de": dict(zip(_GERMAN, [*_MEANING, "window"], strict=True)),
}
ALL_WORDS = sorted({word for words in WORDS.values() for word in words})

# Whisper's languages in Whisper's order; large-v3 added "yue" at the end.
LANGUAGES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th "
    "ur hr bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr "
    "pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt "
    "haw ln ha ba jw su yue"
).split()

SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    *(f"<|{language}|>" for language in LANGUAGES),
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
]


class TokenIds:
    """Token ids, looked up by name in the tokenizer.

    Text tokens come first, then the special tokens, then the timestamps.
    """

    def __init__(self, path: Path) -> None:
        self.tokenizer = tokenizers.Tokenizer.from_file(str(path))
        self.endoftext = self._id("<|endoftext|>")
        self.startoftranscript = self._id("<|startoftranscript|>")
        self.task = {task: self._id(f"<|{task}|>") for task in ("transcribe", "translate")}
        self.startoflm = self._id("<|startoflm|>")
        self.startofprev = self._id("<|startofprev|>")
        self.nospeech = self._id("<|nospeech|>")
        self.notimestamps = self._id("<|notimestamps|>")
        self.language = {language: self._id(f"<|{language}|>") for language in LANGUAGES}
        self.first_timestamp = self.notimestamps + 1
        self.count = self.first_timestamp + TIMESTAMPS
        self.word = {word: self._single(" " + word) for word in ALL_WORDS}
        self.space = self._single(" ")

    def timestamp(self, seconds: float) -> int:
        return self.first_timestamp + max(0, min(TIMESTAMPS - 1, round(seconds / 0.02)))

    def names(self) -> list[str]:
        """Returns the names of all tokens in the order of their ids."""
        token_of = {i: token for token, i in self.tokenizer.get_vocab().items()}
        plain = [token_of[i] for i in range(self.first_timestamp)]
        return [*plain, *(f"<|{i * 0.02:.2f}|>" for i in range(TIMESTAMPS))]

    def _id(self, token: str) -> int:
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"the tokenizer has no {token}")
        return int(found)

    def _single(self, text: str) -> int:
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        if len(ids) != 1:
            raise ValueError(f"{text!r} is {len(ids)} tokens, not one: train the tokenizer again")
        return int(ids[0])
