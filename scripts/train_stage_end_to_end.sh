#!/usr/bin/env bash
# Stage 3, end to end: the query reasoner chooses among candidates, the generator answers.
#
#   DATA=stage3.jsonl PRETRAIN_CHECKPOINT=runs/stage2/checkpoints/best OUT=runs/stage3 \
#     scripts/train_stage_end_to_end.sh [options of `clara train stage3`]
#
# The same command again goes on where it was cut off.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
clara="${CLARA:-$([ -x "$root/.venv/bin/clara" ] && echo "$root/.venv/bin/clara" || echo clara)}"
flag() { [ "$2" = true ] && echo "--$1" || echo "--no-$1"; }

exec "$clara" train stage3 \
  --data "${DATA:?the training records, .jsonl or .jsonl.gz}" \
  --out "${OUT:?the folder of this training}" \
  --pretrain-checkpoint "${PRETRAIN_CHECKPOINT:?the checkpoint of stage 2}" \
  ${DEV:+--dev "$DEV"} \
  ${BASE:+--base "$BASE"} \
  --learning-rate "${LEARNING_RATE:-5e-6}" \
  --max-len "${MAX_LEN:-1024}" \
  --generation-top-k "${GENERATION_TOP_K:-5}" \
  --batch-size "${BATCH_SIZE:-32}" \
  --epochs "${EPOCHS:-1}" \
  "$(flag do-eval-gen "${DO_EVAL_GEN:-true}")" \
  ${PROCESSES:+--processes "$PROCESSES"} \
  ${ACCELERATE_CONFIG:+--accelerate-config "$ACCELERATE_CONFIG"} \
  "$@"
