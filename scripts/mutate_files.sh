#!/bin/sh
# Loads some 20,000 damaged copies of every file of a model folder (safetensors,
# both formats of pytorch_model.bin, GGUF, config.json, vocab.txt, promptgen.json,
# generation_config.json) and of a training state. Each must be refused with exit code 5 and the file's
# name, or still be valid; none may panic, or take more memory than twice the
# file and 16 MiB.
#
#	scripts/mutate_files.sh [copies of each file, default 1800]
set -eu
cd "$(dirname "$0")/.."
exec go test ./model/checkpoint -count=1 -timeout 60m -run '^TestMutated' -v -args -mutants "${1:-1800}"
