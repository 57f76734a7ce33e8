"""One system on all utterances: what is missing is done, and rows are made of what is there."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from jobs.evaluation.figures import measure_of
from jobs.evaluation.following import verdicts_on
from jobs.evaluation.judging import Heard, Panel, judge_missing, judged_id
from jobs.evaluation.rebuilding import rebuild_missing, rebuildings, recordings_of
from jobs.evaluation.rows import JudgedRow, RecordingRow, SpokenRow, UtteranceRow
from jobs.evaluation.speaking import Saying, sayings, speak_missing
from jobs.evaluation.systems import System
from jobs.evaluation.utterances import SoundFile, Utterance, UtteranceSet
from jobs.running import step_bar
from schemas.attributes import Level, Traits

Described = dict[str, list[tuple[str, Traits]]]
"""Origin → descriptions, and how each was said."""


class SystemRun:
    """A checkpoint, or the recordings, and the folder that keeps what came of it."""

    def __init__(
        self, system: System, asked: UtteranceSet, out: Path, panel: Panel, console: Console
    ) -> None:
        """out: the evaluation's folder. panel: who judges, and by which settings."""
        self.system, self.asked, self.panel, self.console = system, asked, panel, console
        self.config = panel.config
        self.folder = out / system.folder

    def utterances(self, judges: str) -> tuple[list[UtteranceRow], Described]:
        """A row for each utterance that is said, or cannot be. judges: their fingerprint.

        Raises VoxquarryError.
        """
        said: dict[str, Saying] = {}
        spoken: dict[str, SpokenRow] = {}
        if self.system.checkpoint is not None:
            said = sayings(self.asked.utterances, self.system, self.config)
            with self._bar("speaking", len(said)) as progress:
                spoken = speak_missing(
                    list(said.values()), self.system, self.folder, self.config, progress
                )
            heard = [
                self._heard_of(said[one.key], spoken[said[one.key].row_id], judges)
                for one in self.asked.utterances
                if spoken[said[one.key].row_id].file is not None
            ]
        else:
            heard = [
                Heard(
                    utterance=one,
                    row_id=judged_id(one, one.truth.sound_id, judges, self._levels(one)),
                    sound=one.truth,
                )
                for one in self.asked.utterances
                if one.truth is not None
            ]
        with self._bar("judging", len(heard)) as progress:
            found = judge_missing(heard, self.folder, self.panel, self._levels, progress)
        judged = {one.utterance.key: found[one.row_id] for one in heard}
        described: Described = {}
        rows = []
        for one in self.asked.utterances:
            if not said and one.key not in judged:
                continue
            verdict = judged.get(one.key)
            rows.append(self._row(one, spoken[said[one.key].row_id] if said else None, verdict))
            if one.description and verdict is not None and verdict.traits is not None:
                described.setdefault(one.origin, []).append((one.description, verdict.traits))
        return rows, described

    def recordings(self) -> list[RecordingRow]:
        """What the checkpoint's AudioVAE leaves of the recordings. Raises VoxquarryError."""
        if self.system.checkpoint is None:
            return []
        sounds = recordings_of(self.asked.utterances, self.config.evaluate.recordings)
        wanted = rebuildings(sounds, self.system)
        with self._bar("AudioVAE", len(wanted)) as progress:
            found = rebuild_missing(wanted, self.system, self.folder, self.config, progress)
        rows = [(one.sound.name, found[one.row_id]) for one in wanted]
        return [
            RecordingRow(
                system=self.system.label,
                name=name,
                mel_16k=row.mel_16k,
                mel_48k=row.mel_48k,
                stoi=row.stoi,
                pesq=row.pesq,
                error=row.error,
                message=row.message,
            )
            for name, row in rows
        ]

    def _levels(self, one: Utterance) -> Sequence[Level]:
        return self.asked.levels.get(one.origin, ())

    def _heard_of(self, saying: Saying, spoken: SpokenRow, judges: str) -> Heard:
        assert spoken.file is not None, "only what was said is heard"
        one = saying.utterance
        path = self.folder / spoken.file
        return Heard(
            utterance=one,
            row_id=judged_id(one, saying.row_id, judges, self._levels(one)),
            sound=SoundFile(path=path, sound_id=saying.row_id, name=spoken.file),
        )

    def _row(
        self, one: Utterance, spoken: SpokenRow | None, judged: JudgedRow | None
    ) -> UtteranceRow:
        kept = judged or JudgedRow(row_id="")
        failed = spoken if spoken is not None and spoken.error else kept
        verdicts = (
            verdicts_on(one.description, kept.traits, self.config.annotate.verifier)
            if one.description and kept.traits
            else ()
        )
        return UtteranceRow(
            system=self.system.label,
            utterance_id=one.utterance_id,
            origin=one.origin,
            language=one.language,
            text=one.text,
            description=one.description,
            file=f"{self.system.folder}/{spoken.file}" if spoken and spoken.file else None,
            duration_s=spoken.duration_s if spoken else None,
            seed=spoken.seed if spoken else None,
            num_attempts=spoken.num_attempts if spoken else None,
            stopped=spoken.stopped if spoken else None,
            audible=kept.audible,
            text_heard=kept.text_heard,
            measure=measure_of(one.language),
            errors=kept.errors,
            units=kept.units,
            similarity=kept.similarity,
            dnsmos_sig=kept.dnsmos_sig,
            dnsmos_bak=kept.dnsmos_bak,
            dnsmos_ovrl=kept.dnsmos_ovrl,
            dnsmos_p808=kept.dnsmos_p808,
            followed=verdicts,
            unit=spoken.unit if spoken else None,
            unit_s=spoken.unit_s if spoken else None,
            unit_audio_s=spoken.unit_audio_s if spoken else None,
            error=failed.error,
            message=failed.message,
        )

    @contextmanager
    def _bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        with step_bar(self.console) as bar:
            task = bar.add_task(f"{self.system.label}: {what}", total=total, note="")
            yield lambda done: bar.advance(task, done)
