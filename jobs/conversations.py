"""Whole conversations with an audio language model: ask, read, have an answer mended once.

Works in blocks, so that the conversations of one block are what memory holds.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Generic, TypeVar

from annotators import prompts
from annotators.answers import (
    Impression,
    Opinion,
    read_comparison,
    read_description,
    read_view,
)
from annotators.written import Written
from pipeline.chat.asking import QUESTIONS_PER_BLOCK, Answer, Chat
from pipeline.chat.request import Question
from pipeline.chat.responses import Response
from schemas.chat import Prompt
from schemas.descriptions import Claim
from schemas.errors import MalformedAnswer

Read = TypeVar("Read")


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """A clip that a model listens to."""

    clip_id: str
    part: str
    """Part of `clips` that holds the clip's row."""
    duration_s: float
    again: int = 0
    """Counts up to have questions that were answered before answered anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToDescribe:
    """A clip to be described."""

    clip: Heard
    facts: Mapping[str, str]
    """Measured attribute → its value in words."""
    transcript: str | None
    language: str
    """ISO 639-1 code of the description."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToJudge:
    """A description to be judged."""

    clip: Heard
    claims: tuple[Claim, ...]
    """What the description says; at least one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended(Generic[Read]):
    """How a conversation about a clip ended."""

    clip_id: str
    status: str
    """`done`, `malformed` (the mended answer too), `failed` (after all retries), or `ceiling`
    (not asked, so nothing is wrong with the clip)."""
    read: Read | None
    """Null unless done."""
    response: Response | None
    """The last answer: who gave it, which version, under which terms, by which prompt."""
    reason: str
    """Empty when done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What a second model makes of a description."""

    view: tuple[Impression, ...]
    """What it heard before it knew the claims."""
    opinions: tuple[Opinion, ...]
    """What it makes of each claim."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Topic(Generic[Read]):
    """A prompt about a clip, and how its answer is read."""

    clip: Heard
    prompt: Prompt
    read: Callable[[str], Read]
    """Raises `MalformedAnswer`."""


def describe_all(chat: Chat, tasks: Iterable[ToDescribe]) -> Iterator[Ended[Written]]:
    """A description of every clip, or why there is none, in any order. Raises what `ask` does."""
    for block in _blocks(tasks):
        yield from _settled(chat, [_description(task) for task in block])


def judge_all(chat: Chat, tasks: Iterable[ToJudge]) -> Iterator[Ended[Judgement]]:
    """A second model's judgement: first what it hears by itself, then what it makes of the claims.

    In any order. Raises what `ask` does.
    """
    for block in _blocks(tasks):
        claims = {task.clip.clip_id: task for task in block}
        views = {}
        first = [
            _Topic(clip=task.clip, prompt=prompts.blind_view(), read=read_view) for task in block
        ]
        for view in _settled(chat, first):
            if view.read is None or view.response is None:
                yield _with(view, None)
            else:
                views[view.clip_id] = (view.read, view.response.content)
        second = [_comparison(claims[clip_id], said) for clip_id, (_, said) in views.items()]
        for comparison in _settled(chat, second):
            judged = None
            if comparison.read is not None:
                judged = Judgement(view=views[comparison.clip_id][0], opinions=comparison.read)
            yield _with(comparison, judged)


def _description(task: ToDescribe) -> _Topic[Written]:
    prompt = prompts.describe(facts=task.facts, transcript=task.transcript, language=task.language)
    read = partial(read_description, language=task.language, transcript=task.transcript)
    return _Topic(clip=task.clip, prompt=prompt, read=read)


def _comparison(task: ToJudge, view: str) -> _Topic[tuple[Opinion, ...]]:
    names = [claim.name for claim in task.claims]
    return _Topic(
        clip=task.clip,
        prompt=prompts.compare(view, task.claims),
        read=partial(read_comparison, names=names),
    )


def _settled(chat: Chat, topics: Sequence[_Topic[Read]]) -> Iterator[Ended[Read]]:
    """Ask about every topic; what cannot be read is sent back once."""
    by_clip = {topic.clip.clip_id: topic for topic in topics}
    bad = {}
    for answer in chat.ask(_question(topic) for topic in topics):
        topic = by_clip[answer.question.clip_id]
        ended = _ended(answer, topic.read)
        if ended.status == "malformed":
            prompt = prompts.repair(topic.prompt, answer.content, ended.reason)
            bad[ended.clip_id] = replace(topic, prompt=prompt)
        else:
            yield ended
    for answer in chat.ask(_question(topic) for topic in bad.values()):
        yield _ended(answer, bad[answer.question.clip_id].read)


def _ended(answer: Answer, read: Callable[[str], Read]) -> Ended[Read]:
    clip_id = answer.question.clip_id
    status, reason, value = answer.status, answer.reason, None
    if status == "answered":
        status = "done"
        try:
            value = read(answer.content)
        except MalformedAnswer as error:
            status, reason = "malformed", str(error)
    return Ended(
        clip_id=clip_id, status=status, read=value, response=answer.response, reason=reason
    )


def _with(ended: Ended[Any], read: Read | None) -> Ended[Read]:
    """The same ending, of something else."""
    return Ended(
        clip_id=ended.clip_id,
        status=ended.status,
        read=read,
        response=ended.response,
        reason=ended.reason,
    )


def _question(topic: _Topic[Read]) -> Question:
    clip = topic.clip
    return Question(
        clip_id=clip.clip_id,
        part=clip.part,
        duration_s=clip.duration_s,
        prompt=topic.prompt,
        again=clip.again,
    )


Task = TypeVar("Task")


def _blocks(tasks: Iterable[Task]) -> Iterator[list[Task]]:
    rest = iter(tasks)
    while block := list(islice(rest, QUESTIONS_PER_BLOCK)):
        yield block
