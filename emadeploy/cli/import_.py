"""`emadeploy import`: a checkpoint in the authors' published names becomes one of ours."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from emadeploy.cli.options import requires
from emadeploy.contract.errors import ArtifactError


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Published weights: .pth, .pt, .ckpt, .safetensors.")],
    model: Annotated[str, typer.Option(metavar="NAME|model.yml", help="The model they belong to.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where the checkpoint goes.")],
) -> None:
    """Import published weights of a model; every entry must be there, known and of the right shape."""
    from emadeploy import zoo

    with requires("import", "train"):
        from emadeploy import nets

    spec = zoo.load_spec(model)
    replaces = _holds_checkpoint(output)
    network = nets.import_published(file, spec)
    if replaces:
        checkpoint = nets.save_checkpoint(output, network, spec)  # in one step
    else:
        # Assembled beside its place: a full disk or a kill leaves no half of a checkpoint under the name asked for.
        partial = output.absolute().with_name(f".{output.absolute().name}.partial-{os.getpid()}")
        try:
            checkpoint = nets.save_checkpoint(partial, network, spec)
            os.replace(partial, output)
        except OSError as error:
            raise ArtifactError(f"{output} cannot be written: {error.strerror or error}") from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    print(f"imported {file} as {spec.name}: {output} (weights {checkpoint.digest[:12]})")


def _holds_checkpoint(output: Path) -> bool:
    """Return whether a checkpoint is to be replaced; raises ArtifactError where ``output`` is anything else."""
    if output.is_dir():
        if (output / "checkpoint.json").is_file():
            return True
        if not any(output.iterdir()):
            return False
    elif not output.exists() and not output.is_symlink():
        return False
    raise ArtifactError(f"{output} exists and is not a checkpoint: choose another output with -o")
