#!/usr/bin/env bash
# The rooms table: stl, hps, emanet and m_emanet, trained alike on made rooms, judged alike, compared in docs/results.md.
#
#     tools/reproduce_rooms.sh [FOLDER]        default: runs/rooms-table
#
# Every network gets the same steps, frames, seeds and recipe (that of models/emanet-rooms/model.yml); none starts from
# other weights. What is judged is the last checkpoint: choosing the best would favour whoever is validated more often.
# A run that is there is not done again, and one that was cut off goes on where it was.
#
# From the environment: STEPS BATCH SIZE SEEDS TRAIN VAL PRECISION, as below; EMADEPLOY and PYTHON, the programs.
set -euo pipefail

folder=${1:-runs/rooms-table}
steps=${STEPS:-1500}
batch=${BATCH:-4}
size=${SIZE:-96x128}
seeds=${SEEDS:-0}
train=${TRAIN:-rooms:seed=1,count=1600,size=$size}
val=${VAL:-rooms:seed=7,count=200,size=$size}
precision=${PRECISION:-fp32}
emadeploy=${EMADEPLOY:-emadeploy}
python=${PYTHON:-python}
here=$(cd "$(dirname "$0")/.." && pwd)

mkdir -p "$folder"
for seed in $seeds; do
    for network in stl hps emanet m_emanet; do
        run=$folder/$network-seed$seed
        if [ -f "$run/metrics.json" ]; then
            echo "$run: there already"
            continue
        fi
        # The shipped model's recipe, with another network in it; the folder gives the model its name.
        model=$folder/models/rooms-$network/model.yml
        mkdir -p "$(dirname "$model")"
        sed "s/^network: .*/network: $network/; s/^description: .*/description: $network, the rooms table/" \
            "$here/models/emanet-rooms/model.yml" >"$model"
        resume=()
        if [ -f "$run/run.json" ]; then
            resume=(--resume)
        fi
        "$emadeploy" train --model "$model" --data "$train" --val-data "$val" --size "$size" --batch "$batch" \
            --steps "$steps" --seed "$seed" --precision "$precision" --validate-every 1000000 -o "$run" "${resume[@]}"
        "$emadeploy" eval "$run/last" --data "$val" --json "$run/metrics.json"
    done
done
"$python" "$here/tools/rooms_results.py" "$folder" --seeds "$seeds"
