"""The spellings of Whisper's languages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrd.errors import FieldError
from asrd.wire.languages import NAMES, language, language_or_empty


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        *(("en", "en"), ("EN", "en"), (" de ", "de"), ("German", "de"), ("ENGLISH", "en")),
        *(("zh-CN", "zh"), ("zh-Hant", "zh"), ("zh_Hant_HK", "zh"), ("zh-yue", "yue")),
        *(("en_US", "en"), ("en-GB", "en"), ("en_US.UTF-8", "en"), ("de_AT@euro", "de")),
        *(("pt-BR", "pt"), ("yue", "yue"), ("Cantonese", "yue"), ("mandarin", "zh")),
        *(("iw", "he"), ("nb", "no"), ("nb-NO", "no"), ("no", "no"), ("nn", "nn")),
        *(("jv", "jw"), ("jw", "jw"), ("Javanese", "jw"), ("fil", "tl"), ("in", "id")),
        *(("Haitian Creole", "ht"), ("haitian_creole", "ht"), ("haitian", "ht")),
        *(("English (US)", "en"), ("bokmål", "no"), ("haw", "haw"), ("Deutsch", "de")),
        *(("ger", "de"), ("deu", "de"), ("FRE", "fr"), ("chi", "zh"), ("zho-TW", "zh")),
        *(("Norwegian Bokmål", "no"), ("chinese-traditional", "zh"), ("sr-Latn-RS", "sr")),
        *(("", None), ("  ", None), ("auto", None), ("Auto", None), ("auto-detect", None)),
    ],
)
def test_common_spellings_are_accepted(typed: str, code: str | None) -> None:
    assert language("language", typed) == code
    assert language_or_empty("language", typed) == (code or "")


def test_every_code_and_name_is_accepted() -> None:
    for code, name in NAMES.items():
        assert language("language", code) == language("language", name) == code


def test_codes_are_whispers() -> None:
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    assert set(NAMES) == set(_LANGUAGE_CODES)


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("germna", "did you mean 'german' (de)?"),
        ("portugese", "did you mean 'portuguese' (pt)?"),
        ("norweigan", "did you mean 'norwegian' (no)"),
        ("xx", "give a code such as 'de', a name such as 'german', or 'auto'"),
        ("!!", "give a code"),
        ("de, en", "give a code"),
        ("is it german?", "give a code"),
        ("english or german", "give a code"),
    ],
)
def test_error_suggests_similar_names(typed: str, hint: str) -> None:
    with pytest.raises(FieldError) as refused:
        language("language", typed)
    text = str(refused.value)
    assert text.startswith(f"language: {typed!r} is not one of Whisper's languages; {hint}")


@pytest.mark.parametrize("raw", [3, ["en"], "x" * 65])
def test_other_types_and_long_texts_are_refused(raw: object) -> None:
    with pytest.raises(FieldError):
        language("language", raw)


@given(st.text(max_size=64))
def test_any_text_is_a_code_or_refused_in_one_line(text: str) -> None:
    try:
        found = language("language", text)
    except FieldError as refused:
        assert str(refused).isprintable() or not text.isprintable()
    else:
        assert found is None or found in NAMES
