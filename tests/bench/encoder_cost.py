"""
How much of the nDCG@10 of full precision the shipped encoder loses.

    python tests/bench/encoder_cost.py [--folder DIR] [--out FILE]

All products in ../shared/data/industrial are encoded by both, in some minutes; the vectors are kept
in the folder. Where the data is absent there is nothing to measure.
"""

from __future__ import annotations

import json
import statistics
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from encoding import DATA, Item, opened, products
from support import Target, arguments, report

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]


def item_vectors(name: str, items: Sequence[Item], folder: Path) -> Vectors:
    """Vectors of all items, kept in the folder for the next run."""
    encoder = opened(name, threads=0)
    kept = folder / f"items-{encoder.fingerprint[:16]}-{len(items)}.npy"
    if not kept.exists():
        titles, texts = zip(*items, strict=True)
        np.save(kept, encoder.encode_items(titles, texts))
    vectors: Vectors = np.load(kept)
    return vectors


def ndcg(vectors: Vectors) -> float:
    """Mean nDCG@10 of the next item, by the cosine to a decayed mean of the history."""
    gains = []
    for line in (DATA / "test.jsonl").read_text().splitlines():
        row: dict[str, Any] = json.loads(line)
        history = [int(item) for item in row["history"]]
        scores = vectors @ (0.5 ** np.arange(len(history))[::-1] @ vectors[history])
        above = int((scores > scores[int(row["target"])]).sum())
        gains.append(1 / np.log2(2 + above) if above < 10 else 0)
    return statistics.mean(gains)


def cost_percent(items: Sequence[Item], folder: Path) -> float:
    """What of float32's nDCG@10 the shipped encoder loses; negative, if it gains."""
    before, after = (
        ndcg(item_vectors(name, items, folder)) for name in ("e5-small-fp32", "e5-small")
    )
    return 100 * (1 - after / before)


def main() -> None:
    """Encode and compare."""
    options = arguments("What the shipped encoder costs in accuracy.")
    if not DATA.is_dir():
        sys.stderr.write("left out: ../shared/data/industrial is not there\n")
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    cost = cost_percent(products(), options.folder)
    what = "nDCG@10 that the encoder costs, %"
    target = Target("encoder_cost_percent", what, cost, 0.5, at_most=True)
    report([target], {}, options.out)


if __name__ == "__main__":
    main()
