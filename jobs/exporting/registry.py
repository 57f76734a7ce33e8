"""Every format by its name."""

from jobs.exporting.formats import Format
from jobs.exporting.options import FormatName
from jobs.exporting.to_huggingface import HuggingFace
from jobs.exporting.to_jsonl import Qwen3Tts, VoxCpm
from jobs.exporting.to_kaldi import Kaldi
from jobs.exporting.to_lhotse import LhotseShar
from jobs.exporting.to_nemo import Nemo
from jobs.exporting.to_webdataset import WebDataset

FORMATS: dict[FormatName, type[Format]] = {
    one.name: one for one in (VoxCpm, Qwen3Tts, HuggingFace, WebDataset, LhotseShar, Nemo, Kaldi)
}
