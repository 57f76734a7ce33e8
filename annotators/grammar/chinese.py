"""Chinese descriptions: who speaks, then clauses between commas, in one or two sentences."""

import random
import re
from collections.abc import Mapping
from typing import Any

_MANNER = ("rate", "energy", "pitch_range", "pauses", "emphasis", "emotion")
_HEADS = (
    *("语速", "说话", "说得", "语调", "语气", "嗓音", "声音", "嗓门", "音调", "音量", "停顿"),
    *("重音", "起伏", "情绪", "听起来", "带着", "透着", "满是"),
)
# What can follow 说话人, as in 说话人语速缓慢, and what 说话时 has to come before.
_NOUNS = ("语速", "语调", "语气", "嗓音", "声音", "音色", "音调", "音量", "嗓门")
_HOW = (
    *("停顿", "重音", "略有", "稍有", "着重", "轻重", "几乎", "偶", "有一些", "间或", "常常"),
    *("没有", "不分", "不加", "不带", "很少", "一再", "字字", "强调"),
)


def draft(said: Mapping[str, str], chance: random.Random, words: Mapping[str, Any]) -> str | None:
    """One try at a text; None where chance chose what does not fit together."""
    names = [name for name in _MANNER if name in said]
    chance.shuffle(names)
    voice = _voice(said, chance, words)
    opening = _opening(said, names, chance, words)
    clauses = [_clause(said, name, chance, words) for name in names]
    # The voice mostly comes first.
    at = 0 if chance.random() < 0.7 else chance.randint(0, len(clauses))
    clauses[at:at] = voice
    if "accent" in said:
        clauses.append(_accent(said["accent"], words, chance))
    if opening in words["nobody"]:
        if clauses[0].startswith(_NOUNS):
            clauses[0] = opening + clauses[0]
        elif clauses[0].startswith(_HOW):
            clauses[0] = f"{chance.choice(('', opening))}说话时{clauses[0]}"
        else:
            return None
    elif opening:
        clauses.insert(0, opening)
    text = _sentences(clauses, chance)
    if "scenario" in said:
        patterns = ["像是{}", "适合{}这样的场景", "让人想到{}", "适合{}"]
        if said["scenario"].startswith(("在", "正")):
            patterns = ["像是{}", "仿佛{}"]
        ending = chance.choice(patterns)
        text += chance.choice(("，", "。")) + ending.format(said["scenario"])
    return f"{text}。"


def faults(text: str) -> int:
    """How much of a text a reader would stumble over."""
    count = 0
    for head in _HEADS:
        count += max(0, text.count(head) - 1)
    # The same two characters again, roughly: a word that comes twice.
    words = re.findall(r"[\u4e00-\u9fff]{2}", text)
    count += len(words) - len(set(words))
    strong = len(re.findall(r"非常|极其|极", text))
    count += max(0, strong - 2)
    strongest = max(text.count(word) for word in ("非常", "极其", "很", "较", "偏"))
    count += max(0, strongest - 1)
    count += 3 * max(0, len(re.findall(r"\w的\w{0,4}的", text)) - 1)
    return count + 10 * max(0, len(text) - 90) + 10 * max(0, 6 - len(text))


def _opening(
    said: Mapping[str, str], names: list[str], chance: random.Random, words: Mapping[str, Any]
) -> str:
    """Who speaks, perhaps how; the attributes that it tells leave `names`. Empty: nobody."""
    gender, age = said.get("gender", ""), said.get("age", "")
    able = [name for name in names if _adverbs(said, name, words)]
    if not gender and not age:
        if not able or chance.random() < 0.6:
            if not (names or {"pitch", "texture"} & set(said)):
                return "有人在说话"
            return str(chance.choice(("", "", *words["nobody"])))
        subject = chance.choice(words["nobody"])
        return f"{subject}{_saying(said, names, able, chance, words)}"
    subject = chance.choice(words["who"][gender][age])
    whose = words["whose"][gender].get(age)
    alone = not names and not {"pitch", "texture", "accent"} & set(said)
    if able and chance.random() < 0.35:
        return f"{subject}{_saying(said, names, able, chance, words)}"
    patterns = ["{}在说话", "说话的是{}", "这是{}的声音", "听到的是{}的声音"]
    if alone:
        patterns += ["{}正在讲话", "讲话的是{}", "可以听到{}在说话"]
        return str(chance.choice(patterns).format(subject))
    if whose and chance.random() < 0.25:
        return f"{chance.choice(('', '一个', '这是一个'))}{whose}"
    return str(chance.choice(["{}", "{}", "{}", *patterns[:3]]).format(subject))


def _saying(
    said: Mapping[str, str],
    names: list[str],
    able: list[str],
    chance: random.Random,
    words: Mapping[str, Any],
) -> str:
    """Such as 兴奋地大声说着话."""
    adverbs: list[str] = []
    for name in chance.sample(able, min(len(able), chance.choice((1, 1, 2)))):
        word = chance.choice(_adverbs(said, name, words))
        ending = "" if word.endswith("声") else "地"
        # One 地 is enough; 大声 and its like need none, and stand right before the verb.
        if not adverbs or adverbs[0].endswith("地") != bool(ending):
            names.remove(name)
            adverbs.append(f"{word}{ending}")
    adverbs.sort(key=lambda word: word.endswith("声"))
    return "".join(adverbs) + chance.choice(("说着话", "说话", "讲话", "讲着话"))


def _adverbs(said: Mapping[str, str], name: str, words: Mapping[str, Any]) -> list[str]:
    group = words["emotions"] if name == "emotion" else words["forms"][name]
    found: list[str] = group[said[name]].get("de", [])
    return found


def _clause(
    said: Mapping[str, str], name: str, chance: random.Random, words: Mapping[str, Any]
) -> str:
    if name != "emotion":
        return str(chance.choice(words["forms"][name][said[name]]["clause"]))
    felt = words["emotions"][said[name]]
    options = [f"语气{word}" for word in felt.get("words", [])]
    options += [f"语气显得{word}" for word in felt.get("words", [])]
    options += [f"听起来{word}" for word in felt.get("words", []) if word not in ("低落", "凝重")]
    return str(chance.choice([*options, *felt.get("mood", [])]))


def _voice(said: Mapping[str, str], chance: random.Random, words: Mapping[str, Any]) -> list[str]:
    """Clauses of pitch and texture, in one where they go together."""
    textures = _textures(said.get("texture", ""), words)
    pitch = words["forms"]["pitch"][said["pitch"]] if "pitch" in said else None
    if not textures:
        return [chance.choice(pitch["clause"])] if pitch else []
    if pitch and pitch.get("bare") and len(textures) < 3 and chance.random() < 0.5:
        bare = chance.choice(pitch["bare"])
        # 非常低沉沙哑 would be very hoarse.
        textures = [*textures, bare] if bare.startswith("非常") else [bare, *textures]
        pitch = None
    noun = chance.choice(("嗓音", "音色", "声音"))
    found = [f"{noun}{_listed(textures)}"]
    if pitch:
        found.insert(chance.randint(0, 1), chance.choice(pitch["clause"]))
    return found


def _textures(value: str, words: Mapping[str, Any]) -> list[str]:
    parts = [part.strip() for part in re.split(r"[,，、]| and ", value) if part.strip()]
    return [words["textures"].get(part.casefold(), part) for part in parts]


def _listed(parts: list[str]) -> str:
    if len(parts) == 2 and len(parts[0]) == len(parts[1]) == 2:
        return "".join(parts)
    if len(parts) == 2 and all(len(part) <= 2 for part in parts):
        return "而".join(parts)
    *most, last = parts
    return f"{'、'.join(most)}且{last}" if most else last


def _accent(accent: str, words: Mapping[str, Any], chance: random.Random) -> str:
    name = re.sub(r"\s*accent$", "", accent, flags=re.IGNORECASE)
    name = words["accents"].get(name.casefold(), name)
    name = name if name.endswith(("口音", "腔", "调", "腔调")) else f"{name}口音"
    return f"{chance.choice(('带', '带有', '有'))}{name}"


def _sentences(clauses: list[str], chance: random.Random) -> str:
    """Commas, and a full stop or a semicolon in the middle of a long row."""
    if len(clauses) < 5 or chance.random() < 0.3:
        return "，".join(clauses)
    middle = chance.randint(2, len(clauses) - 2)
    mark = chance.choice(("。", "；", "；"))
    return "，".join(clauses[:middle]) + mark + "，".join(clauses[middle:])
