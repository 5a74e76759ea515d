"""The trainings that want a GPU, in order of their value, until a deadline: ``python -m experiments.gpu_train``.

Each is a set of networks that train beside each other. A run that was stopped, or that came to its deadline, goes on
from its checkpoints; what is still missing is named. ``python -m experiments cifar100`` with the same checkpoints then
measures.
"""

import time
from pathlib import Path

import click
import torch

from experiments.cifar100.captured import Captured, train_together
from experiments.cifar100.data import read
from experiments.cifar100.networks import equal_steps
from experiments.cifar100.recipe import Recipe, subset

TENTHS = tuple(share / 10 for share in range(9, 0, -1))
STAGES = {
    "Table 1, three seeds": [Recipe(seed=seed) for seed in range(3)],
    "depths 14 and 20": [Recipe(14), Recipe(20)],
    "depths 32, 44 and 56": [Recipe(32), Recipe(44), Recipe(56)],
    "shares of the data at equal steps": [Recipe(8, equal_steps(share), share) for share in TENTHS],
}


@click.command()
@click.option("--data", default="../shared/data/cifar100", show_default=True, help="Folder of CIFAR-100.")
@click.option("--checkpoints", default="out/cifar100", show_default=True, help="Folder for trainings.")
@click.option("--deadline", default=3600.0, show_default=True, help="Seconds after which nothing is begun.")
@click.option("--stages", default=",".join(map(str, range(len(STAGES)))), show_default=True, help="Which, by number.")
def main(data: str, checkpoints: str, deadline: float, stages: str) -> None:
    """Train until all is done, or the deadline."""
    until = time.perf_counter() + deadline
    if not torch.cuda.is_available():
        raise click.ClickException("no CUDA GPU is seen by torch here; python -m experiments cifar100 trains on a CPU")
    images, labels = read(data)
    on_card = torch.from_numpy(images).cuda(), torch.from_numpy(labels).cuda()
    for name in [list(STAGES)[int(number)] for number in stages.split(",")]:
        trainings = []
        for recipe in STAGES[name]:
            rows = (
                slice(None) if recipe.fraction == 1 else torch.from_numpy(subset(labels, recipe.fraction, recipe.seed))
            )
            some = [part[rows] for part in on_card]
            trainings.append(Captured(recipe, *some, Path(checkpoints) / recipe.name))
        began = time.perf_counter()
        train_together(trainings, until)
        click.echo(f"{name}: {time.perf_counter() - began:.0f} s")
        for one in trainings:
            loss = one.history["loss"][-1] if one.epoch else float("nan")
            state = "done" if one.finished else "NOT FINISHED"
            click.echo(f"  {one.recipe.name}: {one.epoch} of {one.recipe.epochs} epochs, loss {loss:.4f}, {state}")
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
