"""`voxquarry browse`: a corpus' light columns into memory, and the server of its pages."""

import socket
import time
from pathlib import Path

import polars as pl
import uvicorn
from rich.console import Console

from jobs.judge_synthetic import standing_synthetic
from pipeline.browse.catalog import Catalog
from pipeline.browse.server import Shop, make_app
from pipeline.browse.sound import Sounds
from pipeline.packing import bring_up_to_date
from pipeline.reviews import read_reviews
from pipeline.storage import Corpus
from pipeline.tombstones import FOLDER as TOMBSTONES
from pipeline.tombstones import refuse_unfinished
from schemas.arrow import CLIPS, RECORDINGS, SYNTHETIC_VERDICTS, VERDICTS, Table
from schemas.errors import ConfigError

SHOWN = {
    "clips": (
        *("accepted", "reasons", "review", "text", "speaker", "language"),
        *("duration_s", "snr_db", "dnsmos_ovrl", "uri"),
    ),
    "synthetic": (
        *("accepted", "reasons", "review", "text", "description", "language"),
        *("duration_s", "cer", "cosine", "dnsmos_ovrl"),
    ),
}
_HEAVY = {"audio", "words", "speech", "speaker_embedding"}


def run_browse(root: str, port: int, console: Console) -> None:
    """Serve until Ctrl-C. Raises `ConfigError` without a corpus, or where the port is taken."""
    with _bind(port) as bound:
        started = time.perf_counter()
        shop = open_shop(root)
        num_clips = sum(len(catalog) for catalog in shop.catalogs.values())
        console.print(
            f"{num_clips:,} clips read in {time.perf_counter() - started:.1f} s. "
            f"Open http://127.0.0.1:{bound.getsockname()[1]}/ (Ctrl-C ends it)",
            soft_wrap=True,
        )
        server_of(shop).run(sockets=[bound])


def server_of(shop: Shop) -> uvicorn.Server:
    """The server, which answers on the sockets that it is run with."""
    return uvicorn.Server(uvicorn.Config(make_app(shop), log_level="warning", lifespan="off"))


def open_shop(root: str) -> Shop:
    """Read what is shown. Raises `ConfigError` where there is no corpus, or an opt-out is half done."""
    corpus = Corpus(root)
    if not corpus.exists():
        raise ConfigError(f"{root} holds no corpus")
    refuse_unfinished(corpus)
    opt_outs = corpus.names(TOMBSTONES)
    bring_up_to_date(corpus)
    tables = {"clips": clips_of(corpus), "synthetic": clones_of(corpus)}
    return Shop(
        name=Path(corpus.path).name,
        corpus=corpus,
        opt_outs=opt_outs,
        catalogs={
            name: Catalog(name, rows, SHOWN[name])
            for name, rows in tables.items()
            if name == "clips" or rows.height
        },
        sounds=Sounds(corpus, {"clips": ["audio", "words"], "synthetic": ["audio"]}),
    )


def clips_of(corpus: Corpus) -> pl.DataFrame:
    """Light columns of the clips, their verdicts and marks, their files, and their `part`."""
    light = [name for name in CLIPS.schema.names if name not in _HEAVY]
    clips = corpus.read_with_parts(CLIPS, light)
    files = corpus.read(RECORDINGS, ["recording_id", "uri"]).unique("recording_id")
    return (
        clips.join(_verdicts(corpus, VERDICTS), on="clip_id", how="left", maintain_order="left")
        .join(_marks(corpus), on="clip_id", how="left", maintain_order="left")
        .join(files, on="recording_id", how="left", maintain_order="left")
    )


def clones_of(corpus: Corpus) -> pl.DataFrame:
    """As `clips_of`, of the clones that stand."""
    return (
        standing_synthetic(corpus)
        .join(
            _verdicts(corpus, SYNTHETIC_VERDICTS), on="clip_id", how="left", maintain_order="left"
        )
        .join(_marks(corpus), on="clip_id", how="left", maintain_order="left")
    )


def _verdicts(corpus: Corpus, table: Table) -> pl.DataFrame:
    return corpus.read(table).drop("policy_hash")


def _marks(corpus: Corpus) -> pl.DataFrame:
    return read_reviews(corpus).select("clip_id", "review")


def _bind(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(("127.0.0.1", port))
    except OSError as error:
        bound.close()
        raise ConfigError(
            f"port {port} cannot be used: {error.strerror}; --port names another"
        ) from error
    return bound
