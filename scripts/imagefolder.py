"""One pass of torchvision's ImageFolder through a DataLoader, and optionally the same over a copy, to compare."""

import argparse
import sys
import time

import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


def epoch(directory: str, workers: int, batch: int, seed: int) -> tuple[int, float, float]:
    """Reads and decodes every image once, in an order drawn from the seed: images, sum of pixels, seconds."""
    to_tensor = transforms.Compose([transforms.Resize((64, 64)), transforms.ToTensor()])
    images = datasets.ImageFolder(directory, transform=to_tensor)
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(images, batch_size=batch, shuffle=True, num_workers=workers, generator=order)
    began = time.perf_counter()
    count, total = 0, 0.0
    for pixels, labels in loader:
        count += len(labels)
        total += pixels.double().sum().item() + labels.sum().item()
    return count, total, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory")
    parser.add_argument("--compare", metavar="COPY", help="read this too, and fail where its images differ")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quiet", action="store_true", help="print the seconds alone")
    options = parser.parse_args()

    count, total, seconds = epoch(options.directory, options.workers, options.batch, options.seed)
    if options.quiet:
        print(f"{seconds:.4f}")
    else:
        print(f"    {count} images in {seconds:.2f} s ({count / seconds:.0f} images/s)")
    if options.compare:
        other, other_total, _ = epoch(options.compare, options.workers, options.batch, options.seed)
        if (count, total) != (other, other_total):
            sys.exit(f"not the same images: {count} with sum {total}, and {other} with sum {other_total}")
        print("    the same pixels and labels as from the source")


if __name__ == "__main__":
    main()
