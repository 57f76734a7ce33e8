"""The networks are those of transformers; the weights are random, small and made by the test."""

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.expert import Opinion, Sound
from annotators.expert_labels import age_group, label_of
from annotators.registry import known_model
from annotators.wav2vec2_expert import Wav2Vec2Expert
from schemas.attributes import Acoustics
from schemas.descriptions import AGES
from schemas.errors import EmptyAudio, ModelLoadError
from schemas.rows import Wave

pytest.importorskip("transformers")

AUDIO = Path(__file__).parents[1] / "data" / "devset" / "audio"
EMOTIONS = {0: "neu", 1: "hap", 2: "ang", 3: "sad"}
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def waves() -> list[Wave]:
    """Of different lengths."""
    samples, _ = sf.read(AUDIO / "en_allison_s1.flac", dtype="float32", frames=4 * 16_000)
    return [samples[: int(s * 16_000)] for s in (2.0, 0.7, 4.0, 1.3, 0.05)]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes a small checkpoint of a kind, the heads by hand as their authors publish them."""
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForAudioClassification,
        Wav2Vec2Config,
        Wav2Vec2Model,
    )

    def made(
        kind: str,
        *,
        norm: str = "layer",
        labels: dict[int, str] | None = None,
        model_type: str = "wav2vec2",
        pickled: bool = False,
    ) -> Path:
        torch.manual_seed(3)
        place = tmp_path_factory.mktemp(kind)
        shape: dict[str, Any] = {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 24,
            "conv_dim": (8,) * 7,
            "conv_bias": True,
            "feat_extract_norm": norm,
            "do_stable_layer_norm": norm == "layer",
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
            # Random weights of the usual size would answer every clip alike.
            "initializer_range": 0.5,
            "classifier_proj_size": 8,
        }
        if kind == "labels":
            config = AutoConfig.for_model(model_type, **shape, id2label=labels or EMOTIONS)
            net = AutoModelForAudioClassification.from_config(config)
        else:
            config = Wav2Vec2Config(**shape, num_labels=3)
            net = torch.nn.Module()
            net.wav2vec2 = Wav2Vec2Model(config)
            for name, size in (
                {"age": 1, "gender": 3} if kind == "age" else {"classifier": 3}
            ).items():
                head = torch.nn.Module()
                head.dense, head.out_proj = torch.nn.Linear(16, 16), torch.nn.Linear(16, size)
                net.add_module(name, head)
        config.save_pretrained(place)
        state = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
        if pickled:
            torch.save(state, place / "pytorch_model.bin")
        else:
            from safetensors.torch import save_file

            save_file(state, place / "model.safetensors")
        return place

    return made


def sounds(waves: list[Wave]) -> list[Sound]:
    return [Sound(wave_16k=wave, acoustics=Acoustics()) for wave in waves]


def normal(wave: Wave) -> Any:
    import torch
    from transformers import Wav2Vec2FeatureExtractor

    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    values = extractor(wave, sampling_rate=16_000, return_tensors="np")["input_values"]
    return torch.from_numpy(np.asarray(values))


def direct_heads(folder: Path, wave: Wave, *heads: str) -> list[np.ndarray]:
    """transformers' own base model, and the heads by the formula."""
    import torch
    from safetensors.torch import load_file
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    state = load_file(folder / "model.safetensors")
    net = Wav2Vec2Model(Wav2Vec2Config.from_pretrained(folder)).eval()
    own = {name.removeprefix("wav2vec2."): t for name, t in state.items() if "wav2vec2." in name}
    net.load_state_dict(own)
    with torch.no_grad():
        mean = net(normal(wave)).last_hidden_state.mean(dim=1)
        found = []
        for head in heads:
            inside = mean @ state[f"{head}.dense.weight"].T + state[f"{head}.dense.bias"]
            out = torch.tanh(inside) @ state[f"{head}.out_proj.weight"].T
            found.append((out + state[f"{head}.out_proj.bias"])[0].numpy())
    return found


def test_age_and_gender_are_the_heads_over_the_mean_frame(make: Make, waves: list[Wave]) -> None:
    folder = make("age")
    for wave, opinion in zip(
        waves[:4], Wav2Vec2Expert(folder).judge(sounds(waves[:4])), strict=True
    ):
        age, gender = direct_heads(folder, wave, "age", "gender")
        share = np.exp(gender) / np.exp(gender).sum()
        name = ("female", "male", "child")[int(np.argmax(share))]
        if name == "child":
            assert opinion.gender is None
            assert opinion.age == "child"
            assert opinion.age_confidence == pytest.approx(float(share.max()), abs=1e-4)
        else:
            assert opinion.gender == name
            assert opinion.gender_confidence == pytest.approx(float(share.max()), abs=1e-4)
            assert (opinion.age, opinion.age_confidence) == (
                age_group(100 * float(age[0]))[0],
                pytest.approx(age_group(100 * float(age[0]))[1], abs=1e-3),
            )
        assert opinion.emotion is None
        assert opinion.arousal is None


def test_dimensions_go_from_minus_one_to_one(make: Make, waves: list[Wave]) -> None:
    folder = make("dimensions")
    for wave, opinion in zip(
        waves[:4], Wav2Vec2Expert(folder).judge(sounds(waves[:4])), strict=True
    ):
        ((arousal, _, valence),) = direct_heads(folder, wave, "classifier")
        assert opinion.arousal == pytest.approx(np.clip(2 * arousal - 1, -1, 1), abs=1e-4)
        assert opinion.valence == pytest.approx(np.clip(2 * valence - 1, -1, 1), abs=1e-4)
        assert opinion.gender is opinion.age is opinion.emotion is None


@pytest.mark.parametrize(
    ("model_type", "norm"),
    [("wav2vec2", "layer"), ("wav2vec2", "group"), ("hubert", "layer"), ("wavlm", "layer")],
)
def test_labels_are_those_of_the_librarys_own_classifier(
    make: Make, waves: list[Wave], model_type: str, norm: str
) -> None:
    import torch
    from transformers import AutoModelForAudioClassification
    from transformers.utils import logging

    folder = make("labels", norm=norm, model_type=model_type)
    logging.disable_progress_bar()
    net = AutoModelForAudioClassification.from_pretrained(folder).eval()
    words = ("neutral", "happy", "angry", "sad")
    for wave, opinion in zip(
        waves[:4], Wav2Vec2Expert(folder).judge(sounds(waves[:4])), strict=True
    ):
        with torch.no_grad():
            share = net(normal(wave)).logits.softmax(dim=-1)[0].numpy()
        assert opinion.emotion == words[int(np.argmax(share))]
        assert opinion.emotion_confidence == pytest.approx(float(share.max()), abs=1e-4)
        assert opinion.gender is opinion.age is opinion.arousal is None


@pytest.mark.parametrize(
    ("kind", "norm", "model_type"),
    [
        ("age", "layer", "wav2vec2"),
        ("age", "group", "wav2vec2"),
        ("dimensions", "layer", "wav2vec2"),
        ("labels", "layer", "wav2vec2"),
        ("labels", "group", "wav2vec2"),
        ("labels", "layer", "hubert"),
    ],
)
def test_a_clips_opinion_depends_on_that_clip_alone(
    make: Make, waves: list[Wave], kind: str, norm: str, model_type: str
) -> None:
    expert = Wav2Vec2Expert(make(kind, norm=norm, model_type=model_type), batch_size=3)
    together = expert.judge(sounds(waves))
    alone = [expert.judge(sounds([wave]))[0] for wave in waves]
    assert all(same(a, b) for a, b in zip(together, alone, strict=True))
    # Else nothing would be compared.
    assert any(not same(together[0], other) for other in together[1:])


def same(one: Opinion, other: Opinion) -> bool:
    def values(opinion: Opinion) -> list[Any]:
        return [getattr(opinion, name) for name in Opinion.__dataclass_fields__]

    return all(
        a == pytest.approx(b, abs=1e-5) if isinstance(a, float) else a == b
        for a, b in zip(values(one), values(other), strict=True)
    )


def test_only_the_beginning_of_a_long_clip_is_heard(make: Make, waves: list[Wave]) -> None:
    expert = Wav2Vec2Expert(make("dimensions"), longest_s=1.0)
    whole, start = expert.judge(sounds([waves[2], waves[2][:16_000]]))
    assert same(whole, start)


def test_pickled_weights_say_the_same(make: Make, waves: list[Wave]) -> None:
    safe, pickled = (Wav2Vec2Expert(make("age", pickled=how)) for how in (False, True))
    for one, other in zip(safe.judge(sounds(waves)), pickled.judge(sounds(waves)), strict=True):
        assert same(one, other)


def test_weights_of_an_older_pytorch_open(make: Make, waves: list[Wave]) -> None:
    from safetensors.torch import load_file, save_file

    folder = make("dimensions")
    before = Wav2Vec2Expert(folder).judge(sounds(waves))
    old = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        name = name.replace("parametrizations.weight.original0", "weight_g")
        old[name.replace("parametrizations.weight.original1", "weight_v")] = tensor
    assert any(name.endswith("weight_g") for name in old)
    old.pop("wav2vec2.masked_spec_embed", None)
    save_file(old, folder / "model.safetensors")
    after = Wav2Vec2Expert(folder).judge(sounds(waves))
    assert all(same(one, other) for one, other in zip(before, after, strict=True))


def test_an_empty_clip_is_an_error_of_the_data(make: Make) -> None:
    with pytest.raises(EmptyAudio):
        Wav2Vec2Expert(make("age")).judge(sounds([np.zeros(0, np.float32)]))


def test_no_clips_have_no_opinions(make: Make) -> None:
    assert Wav2Vec2Expert(make("age")).judge([]) == []


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{", encoding="utf-8")


def other_type(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")


def own_code(folder: Path) -> None:
    told = {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(told), encoding="utf-8")
    (folder / "code.py").write_text("raise SystemExit('ran')", encoding="utf-8")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_weights(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:1000])


def wider(folder: Path) -> None:
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(told | {"hidden_size": 32}), encoding="utf-8")


def headless(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("classifier")}
    save_file(kept, folder / "model.safetensors")


def nameless(folder: Path) -> None:
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    told["id2label"] = {str(at): f"LABEL_{at}" for at in range(4)}
    (folder / "config.json").write_text(json.dumps(told), encoding="utf-8")


def trap(folder: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (folder / "sprung",)  # type: ignore[return-value]

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Trap()}))


def settings_no_object(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text("[1]", encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (no_config, r"no config\.json"),
        (broken_config, "does not open"),
        (other_type, "type 'bert'"),
        (own_code, "does not open"),
        (no_weights, "no weights"),
        (cut_weights, "do not open"),
        (wider, "other shapes"),
        (headless, "lack classifier"),
        (nameless, "neither genders nor emotions"),
        (trap, "do not open"),
        (settings_no_object, "preprocessor_config"),
    ],
)
def test_a_bad_folder_is_refused_in_one_line(
    make: Make, spoil: Callable[[Path], None], says: str
) -> None:
    folder = make("labels")
    spoil(folder)
    with pytest.raises(ModelLoadError, match=says) as refused:
        Wav2Vec2Expert(folder)
    assert "\n" not in str(refused.value)
    assert not (folder / "sprung").exists()


def test_without_transformers_the_message_says_how_to_get_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make("age")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelLoadError, match=r"voxquarry\[cluster\]"):
        Wav2Vec2Expert(folder)


@pytest.mark.parametrize(
    ("label", "gender", "emotion"),
    [
        ("neu", None, "neutral"),
        ("HAPPINESS", None, "happy"),
        ("05_angry", None, "angry"),
        ("fear", None, "fearful"),
        ("pleasant_surprise", None, "surprised"),
        ("male_sad", "male", "sad"),
        ("Female", "female", None),
        ("M", "male", None),
        ("woman", "female", None),
        ("生气/angry", None, "angry"),
        ("contempt", None, None),
        ("LABEL_3", None, None),
        ("unhappy", None, None),
    ],
)
def test_labels_are_understood(label: str, gender: str | None, emotion: str | None) -> None:
    meant = label_of(label)
    assert (meant.gender, meant.emotion) == (gender, emotion)


def test_labels_of_gender_and_emotion_at_once_are_summed(make: Make, waves: list[Wave]) -> None:
    labels = {0: "female_angry", 1: "female_sad", 2: "male_angry", 3: "male_sad"}
    (opinion,) = Wav2Vec2Expert(make("labels", labels=labels)).judge(sounds(waves[:1]))
    assert opinion.gender in ("female", "male")
    assert opinion.emotion in ("angry", "sad")
    assert opinion.gender_confidence is not None
    assert opinion.gender_confidence >= 0.5
    assert opinion.emotion_confidence is not None
    assert opinion.emotion_confidence >= 0.5


@pytest.mark.parametrize(
    ("years", "group"),
    [
        (5, "child"),
        (12.9, "child"),
        (13, "teenager"),
        (18, "young adult"),
        (34.9, "young adult"),
        (35, "middle-aged"),
        (60, "senior"),
        (99, "senior"),
        (-3, "child"),
    ],
)
def test_years_have_groups(years: float, group: str) -> None:
    assert age_group(years)[0] == group


@settings(deadline=None)
@given(st.floats(-20, 140))
def test_the_confidence_of_an_age_is_the_probability_of_its_group(years: float) -> None:
    group, confidence = age_group(years)
    assert group in AGES
    assert 0 < confidence < 1
    draws = np.random.default_rng(0).normal(years, 10.0, 20_000)
    edges = (-np.inf, 13, 18, 35, 60, np.inf)
    at = AGES.index(group)
    share = float(np.mean((draws >= edges[at]) & (draws < edges[at + 1])))
    assert confidence == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize("name", ["age-gender", "emotion-dim"])
def test_the_experts_have_names(name: str) -> None:
    known = known_model(name)
    assert known is not None
    assert known.kind == "expert"
    assert known.hub
