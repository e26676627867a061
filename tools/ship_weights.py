"""Put the weights of a checkpoint into the zoo, in half precision: models/NAME/weights.

python tools/ship_weights.py runs/emanet-rooms/best emanet-rooms
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from emadeploy import nets, zoo
from emadeploy.contract.errors import SpecError


def ship(checkpoint: Path, name: str) -> Path:
    """Write models/NAME/weights and return it. Raises SpecError where the checkpoint is another network."""
    spec, found = zoo.load_spec(name), nets.read_checkpoint(checkpoint)
    # How it was trained is told by the card; everything else must be what model.yml says.
    trained = replace(found.spec, name=spec.name, train=spec.train, data=spec.data, description=spec.description)
    if trained != spec:
        raise SpecError(f"{checkpoint} holds {found.spec.name!r}, which differs from models/{name}/model.yml")
    folder = zoo.assets("models") / name / "weights"
    nets.save_checkpoint(folder, found.model(), spec, step=found.step, metrics=found.metrics, dtype="float16")
    return folder


def main() -> None:
    """Parse the command line and ship."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("name")
    arguments = parser.parse_args()
    print(f"shipped {ship(arguments.checkpoint, arguments.name)}")


if __name__ == "__main__":
    main()
