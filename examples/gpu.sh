#!/usr/bin/env bash
# All that needs a GPU, in one go: tests, TensorRT engine files, benchmarks, and training.
#
#     examples/gpu.sh                                       # everything, into results/
#     OUTPUT=run PARTS="tests bench" examples/gpu.sh        # some of it, elsewhere
#     PARTS=train examples/gpu.sh data.num_episodes=4000    # the preset's values, overridden
#
# Training is that of the shipped world, in bfloat16, and goes on where an earlier call was ended.
# What fails is told, and the rest goes on. Needs no network. PYTHON names another interpreter.
set -uo pipefail
cd "$(dirname "$0")/.."
output=${OUTPUT:-results} python=${PYTHON:-python} failed=""
"$python" -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "no GPU")' || exit 2
mkdir -p "$output"

try() { # NAME WORDS: runs python with the words; its output is kept in OUTPUT/NAME.log
  echo "== $1"
  "$python" "${@:2}" 2>&1 | tee "$output/$1.log" || failed+=" $1"
}
verb() { try "$1" -m midas_world.commands.cli "${@:2}"; }

for part in ${PARTS:-tests build bench train}; do
  case $part in
    tests) try tests -m pytest -o addopts=-ra -m gpu tests ;;
    build)
      for backend in tensorrt rtx; do verb "build-$backend" build --backend $backend; done
      ;;
    bench)
      for backend in torch tensorrt rtx; do
        verb "bench-$backend" bench --backend $backend --batches 1 8 64 --quality 50
      done
      ;;
    train)
      try train -m midas_world.commands.train_shipped --data "$output/data" \
        --output "$output/stage" "$@"
      ;;
    *) failed+=" $part(no such part)" ;;
  esac
done
echo "failed:${failed:- none}"
[[ -z $failed ]]
