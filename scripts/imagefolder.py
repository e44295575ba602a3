"""Epochs of torchvision's ImageFolder through a DataLoader: over one directory, to compare it with a copy or to time it."""

import argparse
import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Iterator

import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


def loader(directory: str, options: argparse.Namespace) -> DataLoader:
    """Reads and decodes every image once a pass; shuffled passes are drawn from the seed, one after the other."""
    steps = [transforms.PILToTensor()]
    if options.resize:
        steps.insert(0, transforms.Resize((options.resize, options.resize)))
    images = datasets.ImageFolder(directory, transform=transforms.Compose(steps))
    return DataLoader(images, batch_size=options.batch, shuffle=not options.in_order, num_workers=options.workers,
                      generator=torch.Generator().manual_seed(options.seed))


def epoch(batches: DataLoader, step_seconds: float) -> dict:
    """One pass, with an accelerator that is busy for so long with each full batch."""
    images, total, compute = 0, 0, 0.0
    began = time.perf_counter()
    for pixels, labels in batches:
        count = len(labels)
        images += count
        total += int(pixels.sum(dtype=torch.int64)) + int(labels.sum())
        if step_seconds:
            busy = time.perf_counter()
            time.sleep(step_seconds * count / batches.batch_size)
            compute += time.perf_counter() - busy
    return {"images": images, "sum": total, "seconds": time.perf_counter() - began, "compute_seconds": compute}


def training(options: argparse.Namespace) -> Iterator[dict]:
    """What a training run does: one scan of the names, and epochs."""
    if options.drop_caches:
        # Here, for what Python has to load is loaded by now.
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
    began = time.perf_counter()
    batches = loader(options.directory, options)
    scan = time.perf_counter() - began
    for number in range(options.epochs):
        yield epoch(batches, options.step / 1e3) | {"scan_seconds": scan if number == 0 else 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory")
    parser.add_argument("--compare", metavar="COPY", help="read this too, and fail where its images differ")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each epoch")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--step", type=float, default=0, metavar="MS", help="what an accelerator takes for a batch")
    parser.add_argument("--drop-caches", action="store_true", help="drop the kernel's caches before (root)")
    parser.add_argument("--in-order", action="store_true", help="shuffle=False")
    parser.add_argument("--resize", type=int, metavar="PIXELS", help="where images have different sizes")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    # More workers than cores are asked for on purpose.
    warnings.filterwarnings("ignore", message="This DataLoader will create")

    for done in training(options):
        if options.json:
            print(json.dumps(done), flush=True)
        else:
            rate = done["images"] / done["seconds"]
            print(f"    {done['images']} images in {done['seconds']:.2f} s ({rate:.0f} images/s)")
    if options.compare:
        other = epoch(loader(options.compare, options), 0)
        if any(done[key] != other[key] for key in ("images", "sum")):
            sys.exit(f"not the same images: {done['images']} with sum {done['sum']}, and {other['images']} "
                     f"with sum {other['sum']}")
        print("    the same pixels and labels as from the source")


if __name__ == "__main__":
    main()
