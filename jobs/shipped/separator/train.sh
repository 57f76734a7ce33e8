#!/bin/sh
# Makes the detector `music` anew, and a small separator: some hours on two cores. Needs Debian's
# asterisk-core-sounds-{en,es,fr,it,ru}-g722, asterisk-prompt-it-menardi-wav and asterisk-moh-opsound-g722;
# where they are only unpacked (dpkg-deb -x), their root is the first argument. PIP, the second, is a folder
# into which the wheel immich-memories-music 0.1.0 and the sdist pyannote-audio 4.0.7 were unpacked.
# WORK, the third, is made and kept; a second call goes on where the first one was stopped.
set -eu
root=$1 pip=$2 work=${3:-separator-work}

test -e "$work/sources/sources.csv" ||
  python -m jobs.shipped.separator.sources "$root" "$pip" "$work/sources"
torchrun --standalone --nproc-per-node 2 -m jobs.shipped.separator.train \
  "$work/sources" "$work/waves" --steps 16000 --threads 1
mkdir -p "$work/words"
test -e "$work/words/small_speech.yaml" || cp "$work/waves"/small_speech.* "$work/words"
torchrun --standalone --nproc-per-node 2 -m jobs.shipped.separator.train \
  "$work/sources" "$work/words" --steps 1000 --rate 8e-4 --words 60 --threads 1
python -m jobs.shipped.separator.mean "$work/waves" "$work/words" "$work/small_speech"
python -m pip install onnx onnxscript
test -e "$work/music.onnx" ||
  python -m jobs.shipped.separator.detector "$work/sources" "$work/music.onnx" --steps 900
python -m tests.benchmarks.bench_separation "$work/sources" \
  --separator "$work/small_speech" --detector "$work/music.onnx"
