"""Names of languages, as files and people write them: ISO 639-1, both of 639-2, and English."""

_NAMES = """
af afr Afrikaans|am amh Amharic|ar ara Arabic|as asm Assamese|az aze Azerbaijani|ba bak Bashkir
be bel Belarusian|bg bul Bulgarian|bn ben Bengali|bo tib bod Tibetan|br bre Breton|bs bos Bosnian
ca cat Catalan|cs cze ces Czech|cy wel cym Welsh|da dan Danish|de ger deu German
el gre ell Greek|en eng English|es spa Spanish|et est Estonian|eu baq eus Basque|fa per fas Persian
fi fin Finnish|fo fao Faroese|fr fre fra French|ga gle Irish|gl glg Galician|gu guj Gujarati
ha hau Hausa|haw Hawaiian|he iw heb Hebrew|hi hin Hindi|hr hrv scr Croatian
ht hat Haitian|hu hun Hungarian|hy arm hye Armenian|id in ind Indonesian|is ice isl Icelandic
it ita Italian|ja jpn Japanese|jw jv jav Javanese|ka geo kat Georgian|kk kaz Kazakh|km khm Khmer
kn kan Kannada|ko kor Korean|la lat Latin|lb ltz Luxembourgish|ln lin Lingala|lo lao Lao
lt lit Lithuanian|lv lav Latvian|mg mlg Malagasy|mi mao mri Maori|mk mac mkd Macedonian
ml mal Malayalam|mn mon Mongolian|mr mar Marathi|ms may msa Malay|mt mlt Maltese|my bur mya Burmese
ne nep Nepali|nl dut nld Dutch|nn nno Nynorsk|no nb nor nob Norwegian|oc oci Occitan|pa pan Punjabi
pl pol Polish|ps pus Pashto|pt por Portuguese|ro rum ron Romanian|ru rus Russian|sa san Sanskrit
sd snd Sindhi|si sin Sinhala|sk slo slk Slovak|sl slv Slovenian|sn sna Shona|so som Somali
sq alb sqi Albanian|sr srp scc Serbian|su sun Sundanese|sv swe Swedish|sw swa Swahili|ta tam Tamil
te tel Telugu|tg tgk Tajik|th tha Thai|tk tuk Turkmen|tl fil tgl Tagalog|tr tur Turkish
tt tat Tatar|uk ukr Ukrainian|ur urd Urdu|uz uzb Uzbek|vi vie Vietnamese|yi yid Yiddish
yo yor Yoruba|yue Cantonese|zh chi zho cmn Chinese
"""
_CODES = {
    name.lower(): names.split()[0]
    for line in _NAMES.splitlines()
    for names in line.split("|")
    for name in names.split()
}


def same_language(one: str, other: str) -> bool:
    """True for two names of one language, such as `de`, `GER`, `deu`, `de-AT` and `German`."""
    return bool(one) and bool(other) and _code(one) == _code(other)


def _code(name: str) -> str:
    language = name.strip().lower().replace("_", "-").partition("-")[0]
    return _CODES.get(language, language)
