"""Whisper's languages and their spellings. Pure.

`EN`, `en_US`, `en-GB.UTF-8` and `English` are all `en`. `auto` and an empty text stand for
detection.
"""

import re

from asrd.errors import FieldError
from asrd.wire.fields import string


def _table(text: str) -> dict[str, str]:
    return dict(pair.replace("_", " ").split("=") for pair in text.split())


# In the order of Whisper's own list.
NAMES = _table("""
en=english zh=chinese de=german es=spanish ru=russian ko=korean fr=french ja=japanese
pt=portuguese tr=turkish pl=polish ca=catalan nl=dutch ar=arabic sv=swedish it=italian
id=indonesian hi=hindi fi=finnish vi=vietnamese he=hebrew uk=ukrainian el=greek ms=malay
cs=czech ro=romanian da=danish hu=hungarian ta=tamil no=norwegian th=thai ur=urdu hr=croatian
bg=bulgarian lt=lithuanian la=latin mi=maori ml=malayalam cy=welsh sk=slovak te=telugu
fa=persian lv=latvian bn=bengali sr=serbian az=azerbaijani sl=slovenian kn=kannada et=estonian
mk=macedonian br=breton eu=basque is=icelandic hy=armenian ne=nepali mn=mongolian bs=bosnian
kk=kazakh sq=albanian sw=swahili gl=galician mr=marathi pa=punjabi si=sinhala km=khmer sn=shona
yo=yoruba so=somali af=afrikaans oc=occitan ka=georgian be=belarusian tg=tajik sd=sindhi
gu=gujarati am=amharic yi=yiddish lo=lao uz=uzbek fo=faroese ht=haitian_creole ps=pashto
tk=turkmen nn=nynorsk mt=maltese sa=sanskrit lb=luxembourgish my=myanmar bo=tibetan tl=tagalog
mg=malagasy as=assamese tt=tatar haw=hawaiian ln=lingala ha=hausa ba=bashkir jw=javanese
su=sundanese yue=cantonese
""")
# Other names (Whisper's own, and some that speakers use), and codes that ISO 639 or BCP 47 have for
# the same language.
_OTHER = _table("""
burmese=my valencian=ca flemish=nl haitian=ht castilian=es letzeburgesch=lb pushto=ps panjabi=pa
moldavian=ro moldovan=ro sinhalese=si mandarin=zh farsi=fa filipino=tl norwegian_nynorsk=nn
norwegian_bokmål=no bokmål=no deutsch=de français=fr español=es italiano=it português=pt
nederlands=nl iw=he in=id ji=yi jv=jw nb=no mo=ro fil=tl cmn=zh zh_yue=yue
""")
# ISO 639-2, bibliographic and terminological: the codes of media files, and of some people.
_ISO_639_2 = _table("""
afr=af amh=am ara=ar asm=as aze=az bak=ba bel=be bul=bg ben=bn tib=bo bod=bo bre=br bos=bs
cat=ca cze=cs ces=cs wel=cy cym=cy dan=da ger=de deu=de gre=el ell=el eng=en spa=es est=et
baq=eu eus=eu per=fa fas=fa fin=fi fao=fo fre=fr fra=fr glg=gl guj=gu hau=ha heb=he hin=hi
hrv=hr scr=hr hat=ht hun=hu arm=hy hye=hy ind=id ice=is isl=is ita=it jpn=ja jav=jw geo=ka
kat=ka kaz=kk khm=km kan=kn kor=ko lat=la ltz=lb lin=ln lit=lt lav=lv mlg=mg mao=mi mri=mi
mac=mk mkd=mk mal=ml mon=mn mar=mr may=ms msa=ms mlt=mt bur=my mya=my nep=ne dut=nl nld=nl
nno=nn nor=no nob=no oci=oc pan=pa pol=pl pus=ps por=pt rum=ro ron=ro rus=ru san=sa snd=sd
sin=si slo=sk slk=sk slv=sl sna=sn som=so alb=sq sqi=sq srp=sr scc=sr sun=su swe=sv swa=sw
tam=ta tel=te tgk=tg tha=th tuk=tk tgl=tl tur=tr tat=tt ukr=uk urd=ur uzb=uz vie=vi yid=yi
yor=yo chi=zh zho=zh
""")
_BY_NAME = {name: code for code, name in NAMES.items()} | _OTHER | _ISO_639_2
_BY_NAME |= {code: code for code in NAMES}
_DETECT = "auto"
# The separators of a language, its script, region and encoding.
_BETWEEN = re.compile(r"[\W_]+")
# One language with a region or an encoding, neither several nor a sentence after a code.
_ONE = re.compile(r"\s*[^\W_]+([-_.@][^\W_]+)*\s*(\(.*\)\s*)?")
_get_text = string(64)


def language(key: str, raw: object) -> str | None:
    """A getter (see fields). Returns Whisper's code of the language, None for detection."""
    text: str = _get_text(key, raw)
    parts = _parts(text)
    if not text.strip() or parts[:1] == [_DETECT]:
        return None
    code = _code(text)
    if code is None:
        hint = _hint(" ".join(parts))
        raise FieldError(key, f"{text!r} is not one of Whisper's languages; {hint}")
    return code


def same_language(one: str, other: str) -> bool:
    """Returns True for two names of one language, such as `de`, `GER`, `deu`, `de-AT` and `German`.

    Languages that Whisper does not know are compared by their first part.
    """
    first, second = _parts(one), _parts(other)
    if not first or not second:
        return False
    return (_code(one) or first[0]) == (_code(other) or second[0])


def _parts(text: str) -> list[str]:
    return [part for part in _BETWEEN.split(text.casefold()) if part]


def _code(text: str) -> str | None:
    parts = _parts(text)
    names = (" ".join(parts), *(parts[:1] if _ONE.fullmatch(text) else ()))
    return next((_BY_NAME[name] for name in names if name in _BY_NAME), None)


def language_or_empty(key: str, raw: object) -> str:
    """A getter for settings: like `language`, but an empty text for detection."""
    return language(key, raw) or ""


def one_language(key: str, raw: object) -> str:
    """A getter for lists of languages: like `language`, but detection is not one of them."""
    code = language(key, raw)
    if code is None:
        raise FieldError(key, f"{raw!r} is not a language")
    return code


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
