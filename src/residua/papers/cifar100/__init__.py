"""CIFAR-100 and CIFAR-ResNets: what the ResMem paper's §4.1 (arXiv 2302.01576) starts from."""

from residua.papers.cifar100.data import CLASS_NAMES, Cifar100, read
from residua.papers.cifar100.resnet import CifarResNet, load

__all__ = ["CLASS_NAMES", "Cifar100", "CifarResNet", "load", "read"]
