#!/bin/sh
# Makes the checkpoint `nano` anew, from Debian's packages to the model card's figures: some hours on
# two cores. Needs apt-get install asterisk-core-sounds-{en,es,fr,it,ru}{,-g722}; where they are only
# unpacked (dpkg-deb -x), their root is the first argument. WORK (the second) is made and kept; a
# second call goes on where the first one was stopped.
set -eu
root=${1:-/} work=${2:-shipped-work} here=$(dirname "$0")

test -e "$work/prompts/manifest.csv" || python -m jobs.shipped.asterisk_prompts "$root" "$work/prompts"
voxquarry curate "$work/prompts/manifest.csv" --out "$work/sounds" --policy "$here/sounds.yaml"
voxquarry curate "$work/prompts/en.csv" --out "$work/voice" --policy "$here/texts.yaml" \
  --set segmentation.min_s=0.4
voxquarry mine "$work/voice" --policy "$here/texts.yaml"
voxquarry annotate "$work/voice" --policy "$here/texts.yaml"

test -e "$work/fresh" || voxquarry init --size nano --corpus "$work/voice" --out "$work/fresh"
voxquarry train-vae "$work/sounds" --checkpoint "$work/fresh" --out "$work/heard-1" \
  --recipe "$here/audiovae-1.yaml" --policy "$here/sounds.yaml"
voxquarry train-vae "$work/sounds" --checkpoint "$work/heard-1" --out "$work/heard-2" \
  --recipe "$here/audiovae-2.yaml" --policy "$here/sounds.yaml"
voxquarry train-vae "$work/voice" --checkpoint "$work/heard-2" --out "$work/heard-3" \
  --recipe "$here/audiovae-3.yaml" --policy "$here/texts.yaml"
voxquarry encode "$work/voice" --checkpoint "$work/heard-3" --policy "$here/texts.yaml"
voxquarry compose "$work/voice" --checkpoint "$work/heard-3" --policy "$here/texts.yaml" \
  --set compose.validation_share=0.05
voxquarry train "$work/voice" --checkpoint "$work/heard-3" --recipe "$here/voice.yaml" --out "$work/run"
python -m jobs.shipped.measure "$work/voice" --checkpoint "$work/run/checkpoints/last"
