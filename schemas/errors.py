"""Every error that voxquarry raises on purpose.

    VoxquarryError
    ├── ConfigError            stops the job before work begins
    ├── ModelLoadError         stops the job: a model cannot be found or opened
    ├── TooManyFailures        stops the job: more units failed than the profile allows
    ├── StorageError           stops the job: the corpus is damaged, of another version or unwritable
    ├── CorpusInUse            stops the job: another run is writing to the corpus
    ├── Diverged               stops a training: its loss is not finite again and again
    └── DataError              costs one unit of work, which goes to quarantine
        ├── EmptyFile          zero bytes
        ├── UndecodableAudio   no decoder reads it
        ├── NonFiniteAudio     NaN or infinite samples
        ├── NonFiniteLatent    the AudioVAE makes NaN of it, or more than float16 holds
        ├── EmptyAudio         decodes, but to nothing
        ├── TooShortAudio      shorter than any clip could be
        ├── SilentAudio        a voice prompt or reference without a voice
        ├── UnspeakableText    a text that is empty, or that the vocabulary does not know
        ├── MissingSource      the uri cannot be opened
        ├── MalformedAnswer    a model answered something else than it was asked for
        ├── MixedEmbeddings    clips of a session were measured by different speaker encoders
        └── DuplicateRecording the same bytes were already taken in under another uri

A stage raises; the engine decides. Anything that is not a `DataError` is our own bug or a broken
machine; the engine quarantines the unit all the same, and stops the run when the share of failed
units passes the profile's limit.
"""


class VoxquarryError(Exception):
    """Root of the tree."""


class ConfigError(VoxquarryError):
    """A setting, an argument or a manifest column is wrong."""


class ModelLoadError(VoxquarryError):
    """A model name does not resolve, or its weights do not open."""


class TooManyFailures(VoxquarryError):
    """More than the allowed share of units went to quarantine."""


class StorageError(VoxquarryError):
    """A table has another schema than this version writes, a committed part is missing, or nothing
    more can be written."""


class CorpusInUse(VoxquarryError):
    """Another run, which is alive, is writing to the corpus."""


class Diverged(VoxquarryError):
    """A training's loss or gradient is not finite any more; names the step and the losses."""


class DataError(VoxquarryError):
    """One unit of work cannot be judged; its message names the value and the bound."""


class EmptyFile(DataError):
    """The file holds no bytes."""


class UndecodableAudio(DataError):
    """Neither libsndfile nor FFmpeg reads the file as audio."""


class NonFiniteAudio(DataError):
    """The decoded samples hold NaN or infinity."""


class NonFiniteLatent(DataError):
    """What the AudioVAE makes of a clip holds NaN, or a number that float16 cannot hold."""


class EmptyAudio(DataError):
    """There are no samples to work on."""


class TooShortAudio(DataError):
    """The recording is shorter than the shortest useful clip."""


class SilentAudio(DataError):
    """A reference or prompt holds nothing but silence."""


class UnspeakableText(DataError):
    """A text to be spoken is empty, too long, or unknown to the vocabulary."""


class MissingSource(DataError):
    """The uri does not exist, may not be read, or failed while it was read."""


class MalformedAnswer(DataError):
    """A model's answer is not the JSON that was asked for, or cannot be used."""


class DuplicateRecording(DataError):
    """Another uri of this corpus holds the very same bytes."""


class MixedEmbeddings(DataError):
    """Speaker embeddings of different sizes cannot be compared."""
