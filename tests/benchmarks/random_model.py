"""Models of real size that need no download: random weights in the shapes of Whisper.

    python -m tests.benchmarks.random_model SHAPE DIRECTORY [--compute-type T] [--tokens N]

Load time, memory and arithmetic are those of the real model. Purely random weights would decode 224
tokens in each window; the position encodings prevent that and fix the text: English, then the same
N words in every window. In memory, layers of one kind share one random matrix; the file contains a
copy for each layer.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ctranslate2.specs.model_spec import OPTIONAL
from ctranslate2.specs.whisper_spec import WhisperSpec
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from asrd.demo import MODEL
from tests.benchmarks import measure

COMPUTE_TYPES = ("int8", "int8_float16", "float16", "float32")
_POSITIONS, _MAX_TOKENS = 1500, 448
_ENDOFTEXT = 50257
_TIMESTAMPS = 1501
# So small that all layers together do not hide the position encodings.
_WEIGHT = 0.002
# The logit of the fixed token. The others are about normal around 0 and stay under 10.
_LOGIT = 40.0


@dataclass(frozen=True)
class Shape:
    width: int
    encoder_layers: int
    decoder_layers: int
    mels: int
    languages: int

    @property
    def heads(self) -> int:
        return self.width // 64


SHAPES = {
    "tiny": Shape(384, 4, 4, 80, 99),
    "small": Shape(768, 12, 12, 80, 99),
    "large-v3-turbo": Shape(1280, 32, 4, 128, 100),
    "large-v3": Shape(1280, 32, 32, 128, 100),
}


def make(shape: str, directory: Path, compute_type: str = "int8", tokens: int = 30) -> Path:
    """Writes a model for CTranslate2 and faster-whisper into `directory`, and returns it.

    large-v3 takes 1.6 GB in int8 and 3.1 GB in float16. `tokens` is the number of words that it
    says in each window.
    """
    directory.mkdir(parents=True, exist_ok=True)
    names = _vocabulary(SHAPES[shape])
    _Writer(SHAPES[shape], names, compute_type, tokens).spec().save(str(directory))
    (directory / "vocabulary.json").write_text(json.dumps(names))
    _tokenizer(names).save(str(directory / "tokenizer.json"))
    preprocessor = json.loads((MODEL / "preprocessor_config.json").read_text())
    preprocessor["feature_size"] = SHAPES[shape].mels
    (directory / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return directory


def _vocabulary(shape: Shape) -> list[str]:
    """Returns the names of all tokens in the order of Whisper's ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [f"Ġ{number:x}" for number in range(_ENDOFTEXT - 1 - len(alphabet))]
    # In Whisper's own order, which the demo model keeps.
    added = json.loads((MODEL / "tokenizer.json").read_text())["added_tokens"]
    special = [token["content"] for token in added]
    first = special.index("<|startoftranscript|>") + 1
    languages = special[first : special.index("<|translate|>")][: shape.languages]
    rest = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    return [
        *alphabet,
        *words,
        "",
        "<|endoftext|>",
        "<|startoftranscript|>",
        *languages,
        *(f"<|{name}|>" for name in rest),
        *(f"<|{number * 0.02:.2f}|>" for number in range(_TIMESTAMPS)),
    ]


def _tokenizer(names: list[str]) -> Any:
    vocabulary = {name: number for number, name in enumerate(names[:_ENDOFTEXT])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    timestamps = len(names) - _TIMESTAMPS
    tokenizer.add_special_tokens(names[_ENDOFTEXT:timestamps])
    tokenizer.add_tokens([AddedToken(name) for name in names[timestamps:]])
    return tokenizer


class _Writer:
    def __init__(self, shape: Shape, names: list[str], compute_type: str, tokens: int) -> None:
        self._shape = shape
        self._names = names
        self._int8 = compute_type.startswith("int8")
        self._float = np.float16 if compute_type.endswith("float16") else np.float32
        self._tokens = tokens
        self._rng = np.random.default_rng(0)
        self._matrices: dict[tuple[int, int], NDArray[np.int8]] = {}

    def spec(self) -> Any:
        shape, heads = self._shape, self._shape.heads
        spec = WhisperSpec(shape.encoder_layers, heads, shape.decoder_layers, heads)
        self._encoder(spec.encoder)
        self._decoder(spec.decoder)
        spec.register_vocabulary(self._names)
        self._configure(spec.config)
        spec.validate()
        # As in Whisper, the embeddings are also the output layer. `validate` wants an array here,
        # not the name of one, so this comes after it.
        for part in ("weight", "weight_scale") if self._int8 else ("weight",):
            setattr(spec.decoder.projection, part, f"decoder/embeddings/{part}")
        return spec

    def _encoder(self, encoder: Any) -> None:
        width = self._shape.width
        for conv, inputs in ((encoder.conv1, self._shape.mels), (encoder.conv2, width)):
            weight = self._rng.normal(0, _WEIGHT, (width, inputs, 3))
            conv.weight = weight.astype(self._float)
            conv.bias = self._zeros(width)
        positions = self._rng.normal(0, 1, (_POSITIONS, width))
        encoder.position_encodings.encodings = positions.astype(self._float)
        self._norm(encoder.layer_norm)
        for layer in encoder.layer:
            self._attention(layer.self_attention, [3 * width, width])
            self._ffn(layer.ffn)

    def _decoder(self, decoder: Any) -> None:
        width, count = self._shape.width, len(self._names)
        self._weigh(decoder.embeddings, count, width, _LOGIT / width)
        embeddings = self._random(count, width).astype(np.float32)
        said = embeddings[self._script()]
        encodings = 4 * said / said.std()
        decoder.position_encodings.encodings = encodings.astype(self._float)
        decoder.projection.weight = np.zeros((count, 1), self._float)  # to be an alias
        self._norm(decoder.layer_norm)
        for layer in decoder.layer:
            self._attention(layer.self_attention, [3 * width, width])
            self._attention(layer.attention, [width, 2 * width, width])
            self._ffn(layer.ffn)

    def _script(self) -> list[int]:
        """Returns the token after each position: English, transcribe, 0 s, the words, the end."""
        start = ["<|en|>", "<|transcribe|>", "<|0.00|>"]
        first = self._names.index("Ġ1")
        script = [self._names.index(name) for name in start]
        script += range(first, first + self._tokens)
        return script + [_ENDOFTEXT] * (_MAX_TOKENS - len(script))

    def _attention(self, attention: Any, outputs: list[int]) -> None:
        self._norm(attention.layer_norm)
        for linear, rows in zip(attention.linear, outputs, strict=True):
            self._linear(linear, rows, self._shape.width)

    def _ffn(self, ffn: Any) -> None:
        width = self._shape.width
        self._norm(ffn.layer_norm)
        self._linear(ffn.linear_0, 4 * width, width)
        self._linear(ffn.linear_1, width, 4 * width)

    def _linear(self, linear: Any, rows: int, columns: int) -> None:
        self._weigh(linear, rows, columns, _WEIGHT)
        linear.bias = self._zeros(rows)

    def _weigh(self, layer: Any, rows: int, columns: int, deviation: float) -> None:
        weight = self._random(rows, columns)
        scale = np.float32(weight[0].std() / deviation)
        if self._int8:
            layer.weight = weight
            layer.weight_scale = np.full(rows, scale, np.float32)
        else:
            layer.weight = (weight / scale).astype(self._float)
            layer.weight_scale = OPTIONAL

    def _random(self, rows: int, columns: int) -> NDArray[np.int8]:
        key = rows, columns
        if key not in self._matrices:
            self._matrices[key] = self._rng.integers(-127, 128, key, np.int8)
        return self._matrices[key]

    def _norm(self, norm: Any) -> None:
        norm.gamma = np.ones(self._shape.width, self._float)
        norm.beta = self._zeros(self._shape.width)

    def _zeros(self, count: int) -> NDArray[Any]:
        return np.zeros(count, self._float)

    def _configure(self, config: Any) -> None:
        ids = {name: number for number, name in enumerate(self._names)}
        first = ids["<|startoftranscript|>"] + 1
        config.lang_ids = list(range(first, first + self._shape.languages))
        config.suppress_ids = []
        config.suppress_ids_begin = [_ENDOFTEXT]
        last = self._shape.decoder_layers - 1
        config.alignment_heads = [[last, head] for head in range(self._shape.heads)]


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("shape", choices=list(SHAPES))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--compute-type", choices=COMPUTE_TYPES, default="int8")
    parser.add_argument("--tokens", type=int, default=30, help="words in each window")
    arguments = parser.parse_args()
    make(arguments.shape, arguments.directory, arguments.compute_type, arguments.tokens)
    size = (arguments.directory / "model.bin").stat().st_size
    print(f"{arguments.directory}: {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
