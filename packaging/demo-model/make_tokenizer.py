"""Trains a byte-level BPE tokenizer like Whisper's that has one token for each word."""

import argparse
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from vocabulary import ALL_WORDS, SPECIAL_TOKENS, TokenIds


def train() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # A size that is never reached: every word gets its own token, and the tokens of its parts.
    trainer = trainers.BpeTrainer(
        vocab_size=5000,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator([" " + word for word in ALL_WORDS], trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work"))
    work = parser.parse_args().work
    work.mkdir(parents=True, exist_ok=True)
    path = work / "tokenizer.json"
    train().save(str(path))
    ids = TokenIds(path)
    print(f"{path}: {ids.endoftext} text tokens, {ids.count} with special tokens and timestamps")


if __name__ == "__main__":
    main()
