"""The network is SpeechBrain's own; the weights here are random, small and made by the test."""

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile as sf

from annotators.ecapa import Ecapa, EcapaShape
from schemas.errors import EmptyAudio, ModelLoadError
from schemas.rows import Wave

AUDIO = Path(__file__).parents[1] / "data" / "devset" / "audio"
_LAZY = "speechbrain.utils.importutils"
SMALL = EcapaShape(num_mels=80, channels=(16, 16, 16, 16, 48), attention_channels=8, size=12)


@pytest.fixture(scope="module", autouse=True)
def _no_lazy_modules_left_behind() -> Iterator[None]:
    """SpeechBrain leaves modules that raise when anybody looks at them, as Hypothesis does."""
    yield
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and type(module).__module__ == _LAZY:
            del sys.modules[name]


@pytest.fixture(scope="module")
def wave() -> Wave:
    samples, _ = sf.read(AUDIO / "en_allison_s1.flac", dtype="float32", frames=5 * 16_000)
    return samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("speechbrain")
    import torch
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    torch.manual_seed(1)
    net = ECAPA_TDNN(80, lin_neurons=12, channels=[16, 16, 16, 16, 48], attention_channels=8)
    place = tmp_path_factory.mktemp("ecapa")
    torch.save(net.state_dict(), place / "embedding_model.ckpt")
    return place


def test_embeddings_equal_speechbrains_own_chain(folder: Path, wave: Wave) -> None:
    import torch
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    from speechbrain.processing.features import InputNormalization

    net = ECAPA_TDNN(80, lin_neurons=12, channels=[16, 16, 16, 16, 48], attention_channels=8)
    net.load_state_dict(torch.load(folder / "embedding_model.ckpt", weights_only=True))
    net.eval()
    with torch.no_grad():
        lengths = torch.ones(1)
        features = Fbank(n_mels=80)(torch.from_numpy(wave)[None])
        normal = InputNormalization(norm_type="sentence", std_norm=False)(features, lengths)
        expected = net(normal, lengths).flatten().numpy()
    (voice,) = Ecapa(folder, shape=SMALL).embed([wave])
    np.testing.assert_allclose(voice.embedding, expected / np.linalg.norm(expected), atol=1e-4)


@pytest.mark.parametrize("seconds", [0.05, 0.5, 1.5, 2.0, 5.0])
def test_windows_cover_the_clip(folder: Path, wave: Wave, seconds: float) -> None:
    (voice,) = Ecapa(folder, shape=SMALL).embed([wave[: int(seconds * 16_000)]])
    assert voice.windows[0].start_s == 0
    assert voice.windows[-1].end_s >= seconds - 1e-3
    assert all(window.embedding.shape == (12,) for window in voice.windows)


def test_an_empty_clip_is_an_error_of_the_data(folder: Path) -> None:
    with pytest.raises(EmptyAudio):
        Ecapa(folder, shape=SMALL).embed([np.zeros(0, np.float32)])


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    with pytest.raises(ModelLoadError, match="ECAPA"):
        Ecapa(folder)


def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path, folder: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "sprung",)  # type: ignore[return-value]

    (tmp_path / "embedding_model.ckpt").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ModelLoadError):
        Ecapa(tmp_path, shape=SMALL)
    assert not (tmp_path / "sprung").exists()


def test_without_speechbrain_the_message_says_how_to_get_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "speechbrain.lobes.features", None)
    with pytest.raises(ModelLoadError, match=r"voxquarry\[cluster\]"):
        Ecapa(folder, shape=SMALL)
