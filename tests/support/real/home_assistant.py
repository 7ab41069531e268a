"""Home Assistant's own speech-to-text entity, in its own Python; asrd is not installed there.

    home_assistant.py PORT FILE.wav ...

Sets the integration up, then speaks all files at once, as so many satellites do. Prints one JSON
object.
"""

import asyncio
import json
import sys
import wave
from collections.abc import AsyncIterator
from types import SimpleNamespace

from homeassistant.components import stt
from homeassistant.components.wyoming.data import WyomingService
from homeassistant.components.wyoming.stt import WyomingSttProvider
from homeassistant.const import __version__

# Of a voice satellite: 32 ms at 16 kHz.
_CHUNK_FRAMES = 512


async def microphone(path: str) -> AsyncIterator[bytes]:
    with wave.open(path) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (16_000, 2, 1)
        while chunk := file.readframes(_CHUNK_FRAMES):
            yield chunk
            await asyncio.sleep(0)


async def main() -> None:
    port, *paths = sys.argv[1:]
    # As the integration's set-up does: four tries of a second, and then never again.
    service = await WyomingService.create("127.0.0.1", int(port))
    if service is None:
        raise SystemExit("Home Assistant could not connect")
    entity = WyomingSttProvider(SimpleNamespace(entry_id="1"), service)
    metadata = stt.SpeechMetadata(
        language="en",
        format=stt.AudioFormats.WAV,
        codec=stt.AudioCodecs.PCM,
        bit_rate=stt.AudioBitRates.BITRATE_16,
        sample_rate=stt.AudioSampleRates.SAMPLERATE_16000,
        channel=stt.AudioChannels.CHANNEL_MONO,
    )
    spoken = [entity.async_process_audio_stream(metadata, microphone(path)) for path in paths]
    results = await asyncio.gather(*spoken)
    found = {
        "version": __version__,
        "name": service.get_name(),
        "platforms": service.platforms,
        "languages": entity.supported_languages,
        "results": [(result.result.value, result.text) for result in results],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
