"""Whisper's languages, and the ways in which people write them. Pure.

`EN`, `en_US`, `en-GB.UTF-8` and `English` are all `en`; `auto` and an empty text mean that the
language is to be detected.
"""

import re

from asrd.errors import FieldError
from asrd.fields import string

# In the order of Whisper's own list.
NAMES = {
    "en": "english",
    "zh": "chinese",
    "de": "german",
    "es": "spanish",
    "ru": "russian",
    "ko": "korean",
    "fr": "french",
    "ja": "japanese",
    "pt": "portuguese",
    "tr": "turkish",
    "pl": "polish",
    "ca": "catalan",
    "nl": "dutch",
    "ar": "arabic",
    "sv": "swedish",
    "it": "italian",
    "id": "indonesian",
    "hi": "hindi",
    "fi": "finnish",
    "vi": "vietnamese",
    "he": "hebrew",
    "uk": "ukrainian",
    "el": "greek",
    "ms": "malay",
    "cs": "czech",
    "ro": "romanian",
    "da": "danish",
    "hu": "hungarian",
    "ta": "tamil",
    "no": "norwegian",
    "th": "thai",
    "ur": "urdu",
    "hr": "croatian",
    "bg": "bulgarian",
    "lt": "lithuanian",
    "la": "latin",
    "mi": "maori",
    "ml": "malayalam",
    "cy": "welsh",
    "sk": "slovak",
    "te": "telugu",
    "fa": "persian",
    "lv": "latvian",
    "bn": "bengali",
    "sr": "serbian",
    "az": "azerbaijani",
    "sl": "slovenian",
    "kn": "kannada",
    "et": "estonian",
    "mk": "macedonian",
    "br": "breton",
    "eu": "basque",
    "is": "icelandic",
    "hy": "armenian",
    "ne": "nepali",
    "mn": "mongolian",
    "bs": "bosnian",
    "kk": "kazakh",
    "sq": "albanian",
    "sw": "swahili",
    "gl": "galician",
    "mr": "marathi",
    "pa": "punjabi",
    "si": "sinhala",
    "km": "khmer",
    "sn": "shona",
    "yo": "yoruba",
    "so": "somali",
    "af": "afrikaans",
    "oc": "occitan",
    "ka": "georgian",
    "be": "belarusian",
    "tg": "tajik",
    "sd": "sindhi",
    "gu": "gujarati",
    "am": "amharic",
    "yi": "yiddish",
    "lo": "lao",
    "uz": "uzbek",
    "fo": "faroese",
    "ht": "haitian creole",
    "ps": "pashto",
    "tk": "turkmen",
    "nn": "nynorsk",
    "mt": "maltese",
    "sa": "sanskrit",
    "lb": "luxembourgish",
    "my": "myanmar",
    "bo": "tibetan",
    "tl": "tagalog",
    "mg": "malagasy",
    "as": "assamese",
    "tt": "tatar",
    "haw": "hawaiian",
    "ln": "lingala",
    "ha": "hausa",
    "ba": "bashkir",
    "jw": "javanese",
    "su": "sundanese",
    "yue": "cantonese",
}
# Other names (Whisper's own, and some that speakers use), and codes that ISO 639 or BCP 47 have for
# the same language.
_OTHER = {
    **{"burmese": "my", "valencian": "ca", "flemish": "nl", "haitian": "ht", "castilian": "es"},
    **{"letzeburgesch": "lb", "pushto": "ps", "panjabi": "pa", "moldavian": "ro"},
    **{"moldovan": "ro", "sinhalese": "si", "mandarin": "zh", "farsi": "fa", "filipino": "tl"},
    **{"norwegian nynorsk": "nn", "norwegian bokmål": "no", "bokmål": "no"},
    **{"deutsch": "de", "français": "fr"},
    **{"español": "es", "italiano": "it", "português": "pt", "nederlands": "nl"},
    **{"iw": "he", "in": "id", "ji": "yi", "jv": "jw", "nb": "no", "mo": "ro", "fil": "tl"},
    **{"cmn": "zh", "zh yue": "yue"},
}
_BY_NAME = {name: code for code, name in NAMES.items()} | _OTHER | {code: code for code in NAMES}
_DETECT = "auto"
# Stands between a language, its script, region and encoding.
_BETWEEN = re.compile(r"[\W_]+")
# One language with a region or an encoding, not several, nor a sentence that begins with a code.
_ONE = re.compile(r"\s*[^\W_]+([-_.@][^\W_]+)*\s*(\(.*\)\s*)?")
_get_text = string(64)


def language(key: str, raw: object) -> str | None:
    """A getter (see asrd.fields): Whisper's code of what was typed; None: it is to be detected."""
    text: str = _get_text(key, raw)
    parts = [part for part in _BETWEEN.split(text.casefold()) if part]
    if not text.strip() or parts[:1] == [_DETECT]:
        return None
    for name in (" ".join(parts), *(parts[:1] if _ONE.fullmatch(text) else ())):
        if name in _BY_NAME:
            return _BY_NAME[name]
    raise FieldError(key, f"{text!r} is not one of Whisper's languages; {_hint(' '.join(parts))}")


def language_or_empty(key: str, raw: object) -> str:
    """The same for settings, where an empty text stands for detection."""
    return language(key, raw) or ""


def _hint(typed: str) -> str:
    # Imported here: most processes never need it.
    import difflib

    names = [name for name in _BY_NAME if len(name) > 3]
    near = [name for name in names if len(typed) > 2 and name.startswith(typed)]
    near = near or difflib.get_close_matches(typed[:20], names, n=3, cutoff=0.7)
    if not near:
        return "give a code such as 'de', a name such as 'german', or 'auto'"
    # The nearest name of each.
    codes = {_BY_NAME[name]: name for name in reversed(near[:3])}
    found = [f"{name!r} ({code})" for code, name in reversed(codes.items())]
    return f"did you mean {' or '.join(found)}?"
