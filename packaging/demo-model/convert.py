"""Converts a checkpoint to the CTranslate2 model directory that faster-whisper loads.

The weights go through transformers' WhisperForConditionalGeneration, whose logits must agree, and
then through CTranslate2's own Whisper loader, without a Hugging Face tokenizer.

Layouts of the vocabulary:
compact: only the existing tokens, about 2,100, and "" before <|endoftext|>. For CTranslate2, a
  model is multilingual if its vocabulary has "" (as Whisper's has at 50256).
compact-en: the same without "", therefore English-only.
whisper: 51,865 tokens, with Whisper's own ids for all special tokens and timestamps.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import whisper
from ctranslate2.converters.transformers import WhisperLoader
from transformers import WhisperConfig, WhisperForConditionalGeneration
from vocabulary import LANGUAGES, MAX_TOKENS, N_MELS, POSITIONS, TIMESTAMPS, WINDOW_FRAMES, TokenIds
from whisper import GUIDES, Shape, Whisper

LAYOUTS = ("compact", "compact-en", "whisper")

# Whisper's ids before large-v3, and their number.
_WHISPER_EMPTY = 50256
_WHISPER_ENDOFTEXT = 50257
_WHISPER_LANGUAGES = 50259
_WHISPER_TRANSLATE = 50358
_WHISPER_TIMESTAMPS = 50364
_WHISPER_COUNT = 51865

_PREPROCESSOR = {
    "chunk_length": 30,
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": N_MELS,
    "hop_length": 160,
    "n_fft": 400,
    "n_samples": 480000,
    "nb_max_frames": WINDOW_FRAMES,
    "padding_side": "right",
    "padding_value": 0.0,
    "processor_class": "WhisperProcessor",
    "return_attention_mask": False,
    "sampling_rate": 16000,
}


class Layout:
    """`names` has every token by its new id; `new` maps old ids to new ones."""

    def __init__(self, ids: TokenIds, kind: str) -> None:
        self.names = ids.names()
        self.new = {i: i for i in range(ids.count)}
        if kind == "compact":
            self.names.insert(ids.endoftext, "")
            self.new = {i: i + (i >= ids.endoftext) for i in range(ids.count)}
        elif kind == "whisper":
            self.new = _whisper_ids(ids)
            old, self.names = self.names, [f"~{i}" for i in range(_WHISPER_COUNT)]
            self.names[_WHISPER_EMPTY] = ""
            for i, new in self.new.items():
                self.names[new] = old[i]


def _whisper_ids(ids: TokenIds) -> dict[int, int]:
    new = {i: i for i in range(ids.endoftext)}
    new[ids.endoftext] = _WHISPER_ENDOFTEXT
    new[ids.startoftranscript] = _WHISPER_ENDOFTEXT + 1
    for k, language in enumerate(LANGUAGES[:-1]):  # "yue" has no id before large-v3
        new[ids.language[language]] = _WHISPER_LANGUAGES + k
    # The last special tokens are consecutive in both layouts.
    for k in range(ids.first_timestamp - ids.task["translate"]):
        new[ids.task["translate"] + k] = _WHISPER_TRANSLATE + k
    for k in range(TIMESTAMPS):
        new[ids.first_timestamp + k] = _WHISPER_TIMESTAMPS + k
    return new


def to_transformers(model: Whisper, ids: TokenIds) -> Any:
    """Returns the same network as transformers' class. Raises ValueError if the logits differ."""
    twin: Any = WhisperForConditionalGeneration(_config(model.shape, ids))
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith("aux.")}
    twin.model.load_state_dict(weights)
    twin.tie_weights()
    model.eval()
    twin.eval()
    with torch.no_grad():
        features = torch.randn(2, N_MELS, WINDOW_FRAMES) * 0.3
        tokens = torch.randint(0, ids.count, (2, 20))
        theirs = twin(input_features=features, decoder_input_ids=tokens).logits
        difference = float((model(features, tokens) - theirs).abs().max())
    if difference > 1e-3:
        raise ValueError(f"transformers' logits differ by {difference}")
    return twin


def _config(shape: Shape, ids: TokenIds) -> WhisperConfig:
    return WhisperConfig(
        vocab_size=shape.vocab,
        num_mel_bins=N_MELS,
        encoder_layers=shape.enc_layers,
        decoder_layers=shape.dec_layers,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        d_model=shape.d,
        encoder_ffn_dim=4 * shape.d,
        decoder_ffn_dim=4 * shape.d,
        max_source_positions=POSITIONS,
        max_target_positions=MAX_TOKENS,
        decoder_start_token_id=ids.startoftranscript,
        bos_token_id=ids.endoftext,
        eos_token_id=ids.endoftext,
        pad_token_id=ids.endoftext,
    )


def to_ctranslate2(model: Whisper, ids: TokenIds, layout: Layout) -> Any:
    twin = to_transformers(model, ids)
    loader = WhisperLoader()
    spec = loader.get_model_spec(twin)
    _move_tokens(loader, spec.decoder, twin.model.decoder.embed_tokens.weight.detach(), layout)
    spec.register_vocabulary(layout.names)
    last = model.shape.dec_layers - 1
    spec.config.alignment_heads = [[last, head] for head in range(GUIDES[last][1])]
    new = layout.new
    spec.config.lang_ids = sorted(new[i] for i in ids.language.values() if i in new)
    never = [ids.startoftranscript, ids.startoflm, ids.startofprev, ids.nospeech]
    spec.config.suppress_ids = sorted(new[i] for i in [*never, *ids.task.values()])
    # Whisper also has <|endoftext|> here; without it, silence can give empty text even without
    # timestamps.
    spec.config.suppress_ids_begin = [new[ids.space]]
    spec.validate()
    return spec


def _move_tokens(loader: Any, decoder: Any, weights: torch.Tensor, layout: Layout) -> None:
    """Gives unused ids zero rows, which compress well, and a bias of -1000, so that they are never
    predicted."""
    count, width = len(layout.names), weights.shape[1]
    old, new = torch.tensor(list(layout.new)), torch.tensor(list(layout.new.values()))
    moved = torch.zeros(count, width)
    moved[new] = weights[old]
    bias = torch.full((count,), -1000.0)
    bias[new] = 0
    projection = torch.nn.Linear(width, count)
    projection.weight, projection.bias = torch.nn.Parameter(moved), torch.nn.Parameter(bias)
    loader.set_embeddings(decoder.embeddings, projection)  # which reads only its weight
    loader.set_linear(decoder.projection, projection)


def tokenizer_json(path: Path, layout: Layout) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    content["added_tokens"] = [
        {**token, "id": layout.new[token["id"]]}
        for token in content["added_tokens"]
        if token["id"] in layout.new
    ]
    # Special tokens are also in the model's vocabulary; otherwise their ids could not leave a gap.
    for token in content["added_tokens"]:
        content["model"]["vocab"][token["content"]] = token["id"]
    return content


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--work", type=Path, default=Path("work"), help="has tokenizer.json")
    parser.add_argument("--layout", default="compact", choices=LAYOUTS)
    parser.add_argument("--quantization", default="int8", help='"float32" for none')
    arguments = parser.parse_args()
    tokenizer = arguments.work / "tokenizer.json"
    ids = TokenIds(tokenizer)
    layout = Layout(ids, arguments.layout)
    spec = to_ctranslate2(whisper.load(arguments.checkpoint), ids, layout)
    quantization = arguments.quantization
    spec.optimize(quantization=None if quantization == "float32" else quantization)
    arguments.out.mkdir(parents=True, exist_ok=True)
    spec.save(str(arguments.out))
    for name, content in (
        ("vocabulary.json", layout.names),
        ("tokenizer.json", tokenizer_json(tokenizer, layout)),
    ):
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        (arguments.out / name).write_text(text, encoding="utf-8")
    preprocessor = json.dumps(_PREPROCESSOR, indent=1)
    (arguments.out / "preprocessor_config.json").write_text(preprocessor)
    for path in sorted(arguments.out.iterdir()):
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
