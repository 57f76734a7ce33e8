"""What happens to a clip on its way to whoever asks whether it is marked; for tests and benchmarks.

Each attack takes (samples,) and a rate, and returns both.
"""

import io
from collections.abc import Callable

import av
import numpy as np
import numpy.typing as npt
import soundfile
import soxr

Wave = npt.NDArray[np.float32]
Attack = Callable[[Wave, int], tuple[Wave, int]]


def flac(wave: Wave, sample_rate: int) -> tuple[Wave, int]:
    """16 bit FLAC and back."""
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, sample_rate, format="FLAC", subtype="PCM_16")
    buffer.seek(0)
    back, _ = soundfile.read(buffer, dtype="float32")
    return back, sample_rate


def resampled(wave: Wave, sample_rate: int, to_rate: int = 16_000) -> tuple[Wave, int]:
    """Another sample rate."""
    return np.asarray(soxr.resample(wave, sample_rate, to_rate), np.float32), to_rate


def mp3(wave: Wave, sample_rate: int, kbits: int = 64) -> tuple[Wave, int]:
    """MP3 of a constant bit rate and back, with the delay that its decoder leaves."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=sample_rate, layout="mono")
        stream.bit_rate = kbits * 1000
        samples = (np.clip(wave, -1, 1) * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16p", layout="mono")
        frame.sample_rate = sample_rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    buffer.seek(0)
    with av.open(buffer) as container:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=sample_rate)
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]), sample_rate


def chain(*attacks: Attack) -> Attack:
    """One after the other."""

    def attacked(wave: Wave, sample_rate: int) -> tuple[Wave, int]:
        for attack in attacks:
            wave, sample_rate = attack(wave, sample_rate)
        return wave, sample_rate

    return attacked


def gain(factor: float) -> Attack:
    """Louder or softer."""
    return lambda wave, sample_rate: ((wave * factor).astype(np.float32), sample_rate)


def cut(seconds: float) -> Attack:
    """Without its first seconds."""
    return lambda wave, sample_rate: (wave[int(seconds * sample_rate) :], sample_rate)


def noise(snr_db: float) -> Attack:
    """White noise."""

    def noisy(wave: Wave, sample_rate: int) -> tuple[Wave, int]:
        rng = np.random.default_rng(wave.size)
        level = float(np.sqrt(np.mean(np.square(wave)))) * 10 ** (-snr_db / 20)
        return wave + rng.normal(0, level, wave.size).astype(np.float32), sample_rate

    return noisy


def faster(factor: float) -> Attack:
    """Speed and pitch together, as a tape."""

    def sped(wave: Wave, sample_rate: int) -> tuple[Wave, int]:
        return np.asarray(soxr.resample(wave, factor, 1.0), np.float32), sample_rate

    return sped


EVERYDAY: dict[str, Attack] = {
    "as marked": chain(),
    "FLAC 16 bit": flac,
    "FLAC, 16 kHz": chain(flac, resampled),
    "FLAC, MP3 64 kbit/s": chain(flac, mp3),
    "FLAC, 16 kHz, MP3 64 kbit/s": chain(flac, resampled, mp3),
    "half as loud": gain(0.5),
    "first 0.37 s cut off": cut(0.37),
}
"""What a mark has to live through."""
