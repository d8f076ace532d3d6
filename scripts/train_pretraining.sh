#!/usr/bin/env bash
# Stage 1, salient compression pretraining: questions and restatements from one document's latents.
#
#   DATA=stage1.jsonl OUT=runs/stage1 scripts/train_pretraining.sh [options of `clara train stage1`]
#
# The same command again goes on where it was cut off.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
clara="${CLARA:-$([ -x "$root/.venv/bin/clara" ] && echo "$root/.venv/bin/clara" || echo clara)}"
flag() { [ "$2" = true ] && echo "--$1" || echo "--no-$1"; }

exec "$clara" train stage1 \
  --data "${DATA:?the training records, .jsonl or .jsonl.gz}" \
  --out "${OUT:?the folder of this training}" \
  ${DEV:+--dev "$DEV"} \
  ${BASE:+--base "$BASE"} \
  ${PRETRAIN_CHECKPOINT:+--pretrain-checkpoint "$PRETRAIN_CHECKPOINT"} \
  --compress-rate "${COMPRESS_RATE:-32}" \
  --doc-max-length "${DOC_MAX_LENGTH:-256}" \
  --learning-rate "${LEARNING_RATE:-1e-4}" \
  --max-len "${MAX_LEN:-2048}" \
  --batch-size "${BATCH_SIZE:-128}" \
  --epochs "${EPOCHS:-1}" \
  "$(flag mse-loss "${MSE_LOSS:-true}")" \
  "$(flag qa-loss "${QA_LOSS:-true}")" \
  "$(flag do-eval-gen "${DO_EVAL_GEN:-true}")" \
  ${PROCESSES:+--processes "$PROCESSES"} \
  ${ACCELERATE_CONFIG:+--accelerate-config "$ACCELERATE_CONFIG"} \
  "$@"
