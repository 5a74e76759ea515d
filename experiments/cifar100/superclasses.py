"""CIFAR-100's twenty superclasses of five classes each (Krizhevsky 2009)."""

import numpy as np

from experiments.cifar100.data import CLASS_NAMES

_MEMBERS = """
aquatic mammals: beaver dolphin otter seal whale
fish: aquarium_fish flatfish ray shark trout
flowers: orchid poppy rose sunflower tulip
food containers: bottle bowl can cup plate
fruit and vegetables: apple mushroom orange pear sweet_pepper
household electrical devices: clock keyboard lamp telephone television
household furniture: bed chair couch table wardrobe
insects: bee beetle butterfly caterpillar cockroach
large carnivores: bear leopard lion tiger wolf
large man-made outdoor things: bridge castle house road skyscraper
large natural outdoor scenes: cloud forest mountain plain sea
large omnivores and herbivores: camel cattle chimpanzee elephant kangaroo
medium-sized mammals: fox porcupine possum raccoon skunk
non-insect invertebrates: crab lobster snail spider worm
people: baby boy girl man woman
reptiles: crocodile dinosaur lizard snake turtle
small mammals: hamster mouse rabbit shrew squirrel
trees: maple_tree oak_tree palm_tree pine_tree willow_tree
vehicles 1: bicycle bus motorcycle pickup_truck train
vehicles 2: lawn_mower rocket streetcar tank tractor
"""
SUPERCLASSES = {
    name: tuple(members.split()) for name, members in (line.split(": ") for line in _MEMBERS.strip().splitlines())
}
_OF_NAME = {member: number for number, members in enumerate(SUPERCLASSES.values()) for member in members}
SUPERCLASS = np.array([_OF_NAME[name] for name in CLASS_NAMES])  # the number of each class's superclass


def confused(labels: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Labels of which a `share`, drawn at random, are replaced by another class of the same superclass.

    >>> labels = np.repeat(np.arange(100), 10)
    >>> wrong = confused(labels, 0.1)
    >>> int((wrong != labels).sum()), bool((SUPERCLASS[wrong] == SUPERCLASS[labels]).all())
    (100, True)
    """
    rng = np.random.default_rng([seed, 3])
    chosen = rng.permutation(len(labels))[: round(share * len(labels))]
    wrong = labels.copy()
    for row in chosen:
        siblings = np.flatnonzero((SUPERCLASS[labels[row]] == SUPERCLASS) & (np.arange(len(SUPERCLASS)) != labels[row]))
        wrong[row] = rng.choice(siblings)
    return wrong
