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

test -e "$work/fresh/config.json" || voxquarry init --size nano --corpus "$work/voice" --out "$work/fresh"
voxquarry train-vae "$work/sounds" --checkpoint "$work/fresh" --out "$work/heard-1" \
  --recipe "$here/audiovae-1.yaml" --policy "$here/sounds.yaml"
voxquarry train-vae "$work/sounds" --checkpoint "$work/heard-1" --out "$work/heard-2" \
  --recipe "$here/audiovae-2.yaml" --policy "$here/sounds.yaml"
voxquarry train-vae "$work/voice" --checkpoint "$work/heard-2" --out "$work/heard-3" \
  --recipe "$here/audiovae-3.yaml" --policy "$here/texts.yaml"
voxquarry train-vae "$work/voice" --checkpoint "$work/heard-3" --out "$work/heard-4" \
  --recipe "$here/audiovae-4.yaml" --policy "$here/texts.yaml"
test -e "$work/narrow/config.json" ||
  python -m jobs.shipped.narrow_latent "$work/voice" --checkpoint "$work/heard-4" --out "$work/narrow"

# What the voice says, word by word and in phrases; then with references and descriptions.
test -e "$work/phrases/_commits" || python -m jobs.shipped.phrases "$work/voice" "$work/phrases"
voxquarry filter "$work/phrases" --policy "$here/texts.yaml"
voxquarry mine "$work/phrases" --policy "$here/texts.yaml"
voxquarry annotate "$work/phrases" --policy "$here/texts.yaml"
test -e "$work/base/config.json" ||
  voxquarry init --size nano --vae "$work/narrow" --corpus "$work/phrases" --out "$work/base"
voxquarry encode "$work/phrases" --checkpoint "$work/base" --policy "$here/texts.yaml"
from=$work/base
for part in 1 2 3 4; do
  case $part in
  [34]) text=0.5 described=0.05 reference=0.2 both=0.25 ;;
  *) text=1 described=0 reference=0 both=0 ;;
  esac
  voxquarry compose "$work/phrases" --checkpoint "$work/base" --policy "$here/texts.yaml" \
    --set compose.validation_share=0.04 --set compose.stage_2.text=$text \
    --set compose.stage_2.described=$described --set compose.stage_2.reference=$reference \
    --set compose.stage_2.described_reference=$both --set compose.stage_2.continuation=0
  voxquarry train "$work/phrases" --checkpoint "$from" --recipe "$here/voice-$part.yaml" \
    --out "$work/spoken-$part"
  from=$work/spoken-$part/checkpoints/last
done

# The decoder learns on while the latents stay; then it takes the place of the first one.
voxquarry train-vae "$work/voice" --checkpoint "$from" --out "$work/heard-5" \
  --recipe "$here/audiovae-5.yaml" --policy "$here/texts.yaml"
voxquarry train-vae "$work/voice" --checkpoint "$work/heard-5" --out "$work/nano" \
  --recipe "$here/audiovae-6.yaml" --policy "$here/texts.yaml"
python -m jobs.shipped.measure "$work/phrases" --checkpoint "$work/nano" --cfg 3
