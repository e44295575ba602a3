"""What PyTorch itself reads, and in which order: the reference for `cidfs plan`.

usage: python3 scripts/torch-samplers.py --vectors > tests/vectors/torch_samplers.json
       python3 scripts/torch-samplers.py --cases < CASES     a JSON list of cases in, a JSON list of orders out
       python3 scripts/torch-samplers.py --image-folder DIRECTORY    the paths of an ImageFolder in its order

Needs torch, and torchvision for the last.
"""

import array
import hashlib
import itertools
import json
import os
import sys

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler


class Numbers(Dataset):
    """A dataset whose samples are their own positions."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return index


def order(case):
    """The positions that a loader reads in one epoch of a case."""
    dataset = Numbers(case["len"])
    batches = {"batch_size": case["batch_size"] or 256, "drop_last": case["drop_last"], "collate_fn": list}
    seed, epoch = case["seed"], case["epoch"]
    if case["sampler"] == "torch-distributed":
        sampler = DistributedSampler(
            dataset, num_replicas=case["world"], rank=case["rank"], shuffle=case["shuffle"], seed=seed,
            drop_last=case["sampler_drop_last"])
        sampler.set_epoch(epoch)
        if case["batch_size"] is None:
            return list(sampler)
        return list(itertools.chain(*DataLoader(dataset, sampler=sampler, **batches)))
    given = torch.Generator() if case["generator"] == "given" else None

    def set_seed(number):
        given.manual_seed(number) if given is not None else torch.manual_seed(number)

    workers = {"num_workers": 1, "persistent_workers": True} if case["persistent_workers"] else {}
    loader = DataLoader(dataset, shuffle=case["shuffle"], generator=given, **batches, **workers)
    set_seed(seed)
    read = []
    for number in range(epoch + 1):
        if case["reseeded"]:
            set_seed(seed + number)
        read = list(itertools.chain(*loader))
    return read


def distributed(length, seed=0, epoch=0, rank=0, world=1, shuffle=True, sampler_drop_last=False, batch_size=None,
                drop_last=False):
    return dict(sampler="torch-distributed", len=length, seed=seed, epoch=epoch, rank=rank, world=world,
                shuffle=shuffle, sampler_drop_last=sampler_drop_last, batch_size=batch_size, drop_last=drop_last)


def random(length, seed=0, epoch=0, generator="given", reseeded=False, persistent_workers=False, shuffle=True,
           batch_size=None, drop_last=False):
    return dict(sampler="torch-random", len=length, seed=seed, epoch=epoch, generator=generator, reseeded=reseeded,
                persistent_workers=persistent_workers, shuffle=shuffle, batch_size=batch_size, drop_last=drop_last)


def cases():
    for length in (0, 1, 2, 10, 999):
        for rank, world in ((0, 1), (0, 2), (1, 2), (2, 3), (7, 8), (5, 12), (999, 1000)):
            for drop in (False, True):
                yield distributed(length, seed=3, epoch=2, rank=rank, world=world, sampler_drop_last=drop)
    for seed in (0, 1, 42, -1, -7, 2**31, 2**32 - 1, 2**32 + 5, 2**63 - 1, 2**63 + 11, 2**64 - 3):
        for epoch in (0, 1, 2):
            yield distributed(10, seed=seed, epoch=epoch)
            yield random(10, seed=seed, epoch=epoch, reseeded=True)
    for batch_size, drop in itertools.product((1, 4, 7, 64), (False, True)):
        yield distributed(50, rank=1, world=3, batch_size=batch_size, drop_last=drop)
        yield random(50, epoch=1, batch_size=batch_size, drop_last=drop)
    for length in (1, 2, 10, 624, 999, 20_000):
        for epoch in (0, 1, 5):
            for generator, reseeded in itertools.product(("given", "default"), (False, True)):
                yield random(length, seed=11, epoch=epoch, generator=generator, reseeded=reseeded)
    for epoch, generator, reseeded in itertools.product((0, 1, 3), ("given", "default"), (False, True)):
        yield random(30, seed=5, epoch=epoch, generator=generator, reseeded=reseeded, persistent_workers=True)
    yield distributed(10, rank=1, world=4, shuffle=False)
    yield random(10, epoch=3, shuffle=False)
    for rank, world in ((0, 1), (2, 8), (63, 64)):
        yield distributed(20_000, seed=1, epoch=90, rank=rank, world=world)
        yield distributed(1_281_167, seed=0, epoch=3, rank=rank, world=world)
        yield distributed(1_281_167, seed=0, epoch=3, rank=rank, world=world, sampler_drop_last=True)
    for generator in ("given", "default"):
        yield random(1_281_167, seed=0, epoch=1, generator=generator, batch_size=256, drop_last=True)


def vector(case):
    """A case with its order: whole where it is short, else its length, its beginning and its hash."""
    read = order(case)
    if len(read) <= 64:
        return case | {"order": read}
    numbers = array.array("I", read)
    if sys.byteorder != "little":
        numbers.byteswap()
    return case | {"read": len(read), "first": read[:8], "sha256": hashlib.sha256(numbers.tobytes()).hexdigest()}


def image_folder(directory):
    from torchvision.datasets import ImageFolder
    for path, _ in ImageFolder(directory).samples:
        sys.stdout.buffer.write(os.fsencode(os.path.relpath(path, directory)) + b"\n")


def main():
    match sys.argv[1:]:
        case ["--vectors"]:
            print("[\n" + ",\n".join(json.dumps(vector(case)) for case in cases()) + "\n]")
        case ["--cases"]:
            json.dump([order(case) for case in json.load(sys.stdin)], sys.stdout)
        case ["--image-folder", directory]:
            image_folder(directory)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
