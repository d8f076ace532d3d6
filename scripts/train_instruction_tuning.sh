#!/usr/bin/env bash
# Stage 2, compression instruction tuning: questions answered from the latents of five documents.
#
#   DATA=stage2.jsonl PRETRAIN_CHECKPOINT=runs/stage1/checkpoints/best OUT=runs/stage2 \
#     scripts/train_instruction_tuning.sh [options of `clara train stage2`]
#
# The same command again goes on where it was cut off.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
clara="${CLARA:-$([ -x "$root/.venv/bin/clara" ] && echo "$root/.venv/bin/clara" || echo clara)}"
flag() { [ "$2" = true ] && echo "--$1" || echo "--no-$1"; }

exec "$clara" train stage2 \
  --data "${DATA:?the training records, .jsonl or .jsonl.gz}" \
  --out "${OUT:?the folder of this training}" \
  --pretrain-checkpoint "${PRETRAIN_CHECKPOINT:?the checkpoint of stage 1}" \
  ${DEV:+--dev "$DEV"} \
  ${BASE:+--base "$BASE"} \
  --learning-rate "${LEARNING_RATE:-1e-4}" \
  --max-len "${MAX_LEN:-2048}" \
  --generation-top-k "${GENERATION_TOP_K:-5}" \
  --batch-size "${BATCH_SIZE:-128}" \
  --epochs "${EPOCHS:-1}" \
  "$(flag mse-loss "${MSE_LOSS:-true}")" \
  "$(flag do-eval-gen "${DO_EVAL_GEN:-true}")" \
  ${PROCESSES:+--processes "$PROCESSES"} \
  ${ACCELERATE_CONFIG:+--accelerate-config "$ACCELERATE_CONFIG"} \
  "$@"
