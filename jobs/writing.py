"""Who writes the descriptions: the grammar inside the phase, or a model that is asked before."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TypeVar

import polars as pl
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from annotators import prompts
from annotators.grammar import writing as grammar
from annotators.verifier import Hearing
from annotators.written import Written
from jobs.conversations import (
    Ended,
    Heard,
    Judgement,
    ToDescribe,
    ToJudge,
    describe_all,
    judge_all,
)
from jobs.running import Working
from jobs.settings import Settings
from pipeline.chat.api_key import key_from_environment
from pipeline.chat.asking import QUESTIONS_PER_BLOCK, Chat
from pipeline.chat.config import ChatConfig
from pipeline.chat.spending import Purse
from pipeline.derived import Derived, Due
from pipeline.ledger import Ledger
from schemas.errors import ConfigError
from schemas.ids import content_id
from stages.description import Draft, Writer, all_claims, facts_of

Ending = TypeVar("Ending")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What a model needs of a clip beside its traits."""

    part: str
    """Part of `clips` that holds it."""
    transcript: str | None


def check_writers(config: Settings) -> None:
    """Raise `ConfigError` for what would only be found out after hours of measuring."""
    if config.judge.on and not config.chat.on:
        raise ConfigError("judge.url is set and chat.url is not; only a model's words are judged")
    for chat in (config.chat, config.judge):
        # Workers of a cluster that was joined have an environment of their own.
        if chat.on and "RAY_ADDRESS" not in os.environ:
            key_from_environment(chat.key_env)


def writing_fingerprint(config: Settings) -> str:
    """What a description depends on beside its clip's traits."""
    verifier = json.dumps(asdict(config.annotate.verifier), sort_keys=True)
    if not config.chat.on:
        return content_id("grammar", grammar.VERSION, verifier)
    prompt = prompts.describe(facts={}, transcript=None, language="en")
    who = [_asked(config.chat), prompt.prompt_hash]
    if config.judge.on:
        who += [_asked(config.judge), prompts.blind_view().prompt_hash]
    return content_id("chat", verifier, *who)


def _asked(chat: ChatConfig) -> str:
    return content_id(chat.host, chat.model)


def written(
    run: Working,
    config: Settings,
    todo: Iterator[Due],
    clips: pl.DataFrame,
    ledger: Ledger,
) -> Iterator[Iterable[Due]]:
    """The items with what a model wrote about them, block by block; all at once for the grammar.

    clips: clip_id, part and text (its transcript) of all of them. A clip that the spend ceiling
    leaves out is in no block, so a later run asks about it.
    """
    if not config.chat.on:
        yield todo
        return
    purse = Purse(run.corpus)
    while block := list(islice(todo, QUESTIONS_PER_BLOCK)):
        run.start_ray()
        asked = pl.Series([item.item_id for item, _ in block])
        sources = {
            clip_id: Source(part=part, transcript=text)
            for clip_id, part, text in clips.filter(pl.col("clip_id").is_in(asked.implode()))
            .select("clip_id", "part", "text")
            .iter_rows()
        }
        heard = {
            item.item_id: Heard(
                clip_id=item.item_id,
                part=sources[item.item_id].part,
                duration_s=item.duration_s,
                again=_again(item, attempt, ledger),
            )
            for item, attempt in block
        }
        drafts = {item.item_id: item.plan for item, _ in block}
        answers = _ask_writer(run, config, purse, drafts, heard, sources)
        answered = {
            clip_id: _with_answer(drafts[clip_id], ended)
            for clip_id, ended in answers.items()
            if ended.status != "ceiling"
        }
        if config.judge.on:
            answered = _ask_judge(run, config, purse, answered, heard)
        run.facts["spent"] = round(purse.spent, 6)
        run.facts["waiting"] = run.facts.get("waiting", 0) + len(block) - len(answered)
        yield [
            (replace(item, plan=answered[item.item_id]), attempt)
            for item, attempt in block
            if item.item_id in answered
        ]


def _again(item: Derived, attempt: int, ledger: Ledger) -> int:
    """A kept answer serves for ever, unless it is what put the clip into quarantine."""
    _, before = ledger.get(item.item_id, (0, None))
    failed = before is not None and not before.done and before.facts["source"] == item.fingerprint
    return attempt - 1 if failed else 0


def _ask_writer(
    run: Working,
    config: Settings,
    purse: Purse,
    drafts: Mapping[str, Draft],
    heard: Mapping[str, Heard],
    sources: Mapping[str, Source],
) -> dict[str, Ended[Written]]:
    tasks = [
        ToDescribe(
            clip=clip,
            facts=facts_of(drafts[clip_id].traits),
            transcript=sources[clip_id].transcript,
            language=drafts[clip_id].language,
        )
        for clip_id, clip in heard.items()
    ]
    chat = Chat(run.corpus, config.chat, purse)
    shown = _shown(run, "asking the writer", describe_all(chat, tasks), len(tasks), purse)
    return {ended.clip_id: ended for ended in shown}


def _ask_judge(
    run: Working,
    config: Settings,
    purse: Purse,
    drafts: Mapping[str, Draft],
    heard: Mapping[str, Heard],
) -> dict[str, Draft]:
    """The drafts with what the judge made of them; one that it could not judge stays out.

    A judge is asked for because descriptions without its word are not wanted.
    """
    tasks = [
        ToJudge(clip=heard[clip_id], claims=all_claims(draft, draft.text))
        for clip_id, draft in drafts.items()
        if draft.text is not None and all_claims(draft, draft.text)
    ]
    chat = Chat(run.corpus, config.judge, purse)
    shown = _shown(run, "asking the judge", judge_all(chat, tasks), len(tasks), purse)
    judged = {ended.clip_id: ended for ended in shown}
    done = {}
    for clip_id, draft in drafts.items():
        ended = judged.get(clip_id)
        if ended is None:
            done[clip_id] = draft
        elif ended.read is not None:
            done[clip_id] = replace(draft, hearings=hearings_of(ended.read, config.judge.model))
        elif ended.status != "ceiling":
            done[clip_id] = replace(draft, failure=f"the judge: {ended.reason}")
    return done


def hearings_of(judgement: Judgement, model: str) -> dict[str, Hearing]:
    """Attribute → what the second model made of it."""
    views = {impression.name: impression for impression in judgement.view}
    heard = {}
    for opinion in judgement.opinions:
        view = views.get(opinion.name)
        heard[opinion.name] = Hearing(
            agrees={"agree": True, "disagree": False}.get(opinion.opinion),
            view=view.value if view else None,
            confidence=view.confidence if view else None,
            model=model,
        )
    return heard


def _with_answer(draft: Draft, ended: Ended[Written]) -> Draft:
    response = ended.response
    writer = Writer(kind="chat", model="")
    if response is not None:
        writer = Writer(
            kind="chat",
            model=response.model,
            model_version=response.model_version,
            provider=response.provider or response.host,
            prompt_hash=response.prompt_hash,
            terms=response.terms,
        )
    if ended.read is None:
        return replace(draft, writer=writer, failure=f"{ended.status}: {ended.reason}")
    return replace(draft, writer=writer, text=ended.read.text, claims=ended.read.claims)


def _shown(
    run: Working, what: str, endings: Iterable[Ending], total: int, purse: Purse
) -> Iterator[Ending]:
    """The endings, under a bar that tells the time left and what was spent."""
    columns = (
        TextColumn(what),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} clips"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=run.console) as progress:
        task = progress.add_task(what, total=total, note="")
        for ending in endings:
            progress.update(task, advance=1, note=f"{purse.spent:.2f} spent")
            yield ending
