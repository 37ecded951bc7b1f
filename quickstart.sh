#!/usr/bin/env bash
# The whole story, end to end: a cell, five training stages, an endpoint, a talking video, and what it is worth.
# Run it through `make quickstart`, which installs what it needs. A second run reuses whatever is already there.
set -euo pipefail
cd "$(dirname "$0")"
out="${HELIOS_HOME:-.helios}/quickstart"
mkdir -p "$out"
started=$SECONDS
step() { printf '\n\033[1m== %s\033[0m  \033[2m[%d:%02d]\033[0m\n' "$1" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)); }

step "1/7 Start HELIOS: control plane, MLflow, Ray"
helios up

step "2/7 Make this machine a cell"
helios cell apply cells/local.yaml --wait

step "3/7 Train the five stages"
helios submit jobs/curricula/tiny.yaml --follow

step "4/7 Deploy the endpoint"
helios serve deploy jobs/services/avatar.yaml --wait

step "5/7 Material nobody trained on: a face and a voice"
[ -s "$out/reference.mp4" ] || python -m helios_jobs.data.heldout --out "$out"

step "6/7 Generate"
helios generate --reference "$out/reference.mp4" --audio "$out/speech.wav" --output "$out/talking.mp4" --force

step "7/7 Measure on held-out identities"
helios submit jobs/evaluate-tiny.yaml --follow
helios logs evaluate-tiny

sheet=$(helios get job evaluate-tiny -o json |
  python -c 'import json, sys; print(json.load(sys.stdin)["status"]["outputs"]["contact_sheet"])')
cp "$sheet" "$out/contact-sheet.png"

step "Done"
helios status
helios serve list
cat <<TEXT

The video          $out/talking.mp4
Made from          $out/reference.mp4  $out/speech.wav
Contact sheet      $out/contact-sheet.png
Runs and curves    MLflow, at the URL above
Your own           helios generate --reference clip.mp4 --audio speech.flac -o out.mp4
Stop, keep all     helios down
TEXT
