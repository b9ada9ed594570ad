"""The results of an evaluation: a table, JSON, a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rec_pkg.ranking_metrics import Figure

DRAWN: Final = ("hr@10", "ndcg@10")
HEADINGS: Final = {
    "hr@10": "hr@10",
    "ndcg@10": "ndcg@10",
    "mrr": "mrr",
    "recall@20": "rec@20",
    "intra_list_distance@10": "distance",
    "novelty@10": "novelty",
    "share_filled": "filled",
    "coverage@10": "coverage",
}


@dataclass(frozen=True, slots=True)
class Result:
    """The figures of one model; for cold items and cold users, accuracy only."""

    figures: Mapping[str, Figure]
    coverage: float
    cold_items: Mapping[str, Figure]
    cold_users: Mapping[str, Figure]
    n_cold_items: int
    n_cold_users: int


@dataclass(frozen=True, slots=True)
class Report:
    """
    An evaluation: `n` cases by `protocol`, the figures of each model, and how they were obtained.

    `facts` holds the options, the parameters of the baselines and the time taken.
    """

    dataset: str
    protocol: str
    n: int
    models: Mapping[str, Result]
    facts: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the content of the JSON file: plain figures, each with its 95 % interval."""
        models = {name: _plain(result) for name, result in self.models.items()}
        head = {"dataset": self.dataset, "protocol": self.protocol, "n": self.n}
        return head | dict(self.facts) | {"models": models}

    def as_table(self) -> Table:
        """Return a table with a row per model; for cold items and users, hit rate and nDCG."""
        title = f"{self.dataset}, {self.protocol}: {self.n:,} cases, intervals of 95 % over users"
        table = Table(title=title, box=None, pad_edge=False, header_style="bold")
        for heading in ("model", *HEADINGS.values(), *self._parts()):
            justify: Literal["left", "right"] = "left" if heading == "model" else "right"
            table.add_column(heading, justify=justify, no_wrap=True)
        for name, result in self.models.items():
            table.add_row(name, *_cells(result))
        return table

    def _parts(self) -> tuple[str, ...]:
        some = next(iter(self.models.values()))
        return f"cold items\n(n={some.n_cold_items:,})", f"cold users\n(n={some.n_cold_users:,})"


def plot(report: Report, path: Path) -> None:
    """Draw each model's hit rate and nDCG with its interval into a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # slow to import
    from matplotlib.figure import Figure as Picture  # noqa: PLC0415  # the same

    picture = Picture(figsize=(10, 4.5), layout="constrained")
    FigureCanvasAgg(picture)
    names = [name for name in report.models if name != "oracle"][::-1]  # it would dwarf the others
    for number, column in enumerate(DRAWN, 1):
        axes = picture.add_subplot(1, len(DRAWN), number)
        figures = [report.models[name].figures[column] for name in names]
        below = [figure.mean - figure.low for figure in figures]
        above = [figure.high - figure.mean for figure in figures]
        colours = ["tab:orange" if name == "rec" else "tab:blue" for name in names]
        axes.barh(names, [f.mean for f in figures], xerr=[below, above], color=colours, capsize=3)
        axes.set_xlabel(column)
    picture.suptitle(f"{report.dataset}, {report.protocol}, n = {report.n:,}")
    picture.savefig(path, dpi=120, format="png")


def _cells(result: Result) -> list[str]:
    drawn = [_with_margin(result.figures[column]) for column in DRAWN]
    others = [f"{f.mean:.3f}" for name, f in result.figures.items() if name not in DRAWN]
    parts = map(_pair, (result.cold_items, result.cold_users))
    return [*drawn, *others, f"{result.coverage:.3f}", *parts]


def _with_margin(figure: Figure) -> str:
    return f"{figure.mean:.4f} ±{(figure.high - figure.low) / 2:.3f}"


def _pair(figures: Mapping[str, Figure]) -> str:
    if not figures:
        return "-"
    return "/".join(f"{figures[column].mean:.3f}" for column in DRAWN)


def _plain(result: Result) -> dict[str, Any]:
    figures = {name: figure.mean for name, figure in result.figures.items()}
    return figures | {
        "coverage@10": result.coverage,
        "intervals": {name: [f.low, f.high] for name, f in result.figures.items()},
        "cold_items": _plain_part(result.n_cold_items, result.cold_items),
        "cold_users": _plain_part(result.n_cold_users, result.cold_users),
    }


def _plain_part(n: int, figures: Mapping[str, Figure]) -> dict[str, Any]:
    return {
        "n": n,
        **{name: figure.mean for name, figure in figures.items()},
        "intervals": {name: [f.low, f.high] for name, f in figures.items()},
    }
