"""Test lists in the format of seed-tts-eval: an utterance a line, beside its recordings.

    utt_id|prompt_text|prompt_wav|text_to_speak[|truth_wav]

Recordings lie in the list's folder or below it; a path that leads out of it is refused, whatever it
leads to. A line that cannot be used is left out and named, and the others stand.
Source of the format: https://github.com/BytedanceSpeech/seed-tts-eval
"""

from pathlib import Path

from annotators.languages import base_code, languages
from jobs.evaluation.utterances import Refused, SoundFile, Utterance, UtteranceSet
from schemas.errors import ConfigError
from schemas.ids import content_id

LONGEST_LINE = 20_000
"""Bytes; no utterance comes near, and what is no list at all would fill the terminal."""


class BadLine(Exception):
    """A line that cannot be used; costs that line alone."""

    def __init__(self, message: str, utterance_id: str | None = None) -> None:
        super().__init__(message)
        self.utterance_id = utterance_id


def read_list(file: Path, language: str | None) -> UtteranceSet:
    """The utterances of a list, and the lines that are none.

    language: ISO 639-1; None takes the name of the list's folder. Raises ConfigError where the file
    cannot be read, its language is not known, or no line can be used.
    """
    spoken = language_of(file, language)
    try:
        lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    origin = f"{file.resolve().parent.name}/{file.name}"
    utterances: list[Utterance] = []
    refused: list[Refused] = []
    seen: dict[str, int] = {}
    for number, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        try:
            one = utterance_of(raw, file.parent, origin, spoken)
            if one.utterance_id in seen:
                first = seen[one.utterance_id]
                raise BadLine(f"line {first} has the same id", one.utterance_id)
        except BadLine as error:
            refused.append(
                Refused(
                    where=f"{origin}, line {number}",
                    utterance_id=error.utterance_id,
                    error="BadLine",
                    message=str(error),
                )
            )
            continue
        seen[one.utterance_id] = number
        utterances.append(one)
    if not utterances:
        why = f"; {refused[0].where}: {refused[0].message}" if refused else ""
        raise ConfigError(f"{file} holds no utterance{why}")
    return UtteranceSet(utterances=utterances, refused=refused)


def language_of(file: Path, language: str | None) -> str:
    """The language of a list. Raises ConfigError."""
    code = base_code(language or file.resolve().parent.name)
    if code in languages():
        return str(code)
    if language is not None:
        raise ConfigError(
            f"unknown language {language!r}; annotators/languages.yaml has a row of each"
        )
    raise ConfigError(
        f"{file}: in which language? Its folder is not named after one; give --language"
    )


def utterance_of(raw: bytes, folder: Path, origin: str, language: str) -> Utterance:
    """One line. Raises BadLine."""
    if len(raw) > LONGEST_LINE:
        raise BadLine(f"has {len(raw):,} bytes; no utterance has more than {LONGEST_LINE:,}")
    try:
        fields = [field.strip() for field in raw.decode().split("|")]
    except UnicodeDecodeError as error:
        raise BadLine("is not UTF-8") from error
    if len(fields) not in (4, 5):
        raise BadLine(f"has {len(fields)} fields; utt_id|prompt_text|prompt_wav|text[|truth_wav]")
    utterance_id, voice_text, voice, text = fields[:4]
    if not utterance_id:
        raise BadLine("has no id")
    try:
        if not any(char.isalnum() for char in text):
            raise BadLine("has no text to speak")
        truth = fields[4] if len(fields) == 5 and fields[4] else None
        return Utterance(
            utterance_id=utterance_id,
            origin=origin,
            language=language,
            text=text,
            voice=sound_of(folder, voice),
            voice_text=voice_text or None,
            truth=sound_of(folder, truth) if truth else None,
        )
    except BadLine as error:
        raise BadLine(str(error), utterance_id) from None


def sound_of(folder: Path, name: str) -> SoundFile:
    """A recording of the list. Raises BadLine where it is missing or lies outside the folder."""
    if not name:
        raise BadLine("names no recording of the voice")
    try:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise BadLine(f"{name} leads out of the list's folder")
        # Reading a pipe or a device might never end.
        if path.exists() and not path.is_file():
            raise BadLine(f"{name} is no file")
        return SoundFile(path=path, sound_id=content_id(path.read_bytes()), name=name)
    except (OSError, ValueError, RuntimeError) as error:
        # Not there, a folder, a name that no file can have, links in a circle.
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadLine(f"{name} cannot be read: {why}") from error
