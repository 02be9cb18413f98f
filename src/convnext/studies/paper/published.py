"""The tables of arXiv 2201.03545 as values: what a program can compare with, and which cells are in doubt.

Tables 10 and 11 are the roadmap's rows, told in `recipes.roadmap`; Swin stands at their end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from convnext.errors import ConvNeXtError, nearest
from convnext.recipes.listing import listed, listed_dense
from convnext.recipes.roadmap import REGIMES, Regime, roadmap
from convnext.studies.paper import rows as paper_rows
from convnext.studies.paper.rows import DOUBTS, Cell

PAPER = "arXiv 2201.03545v2"
_WHOLES: dict[str, tuple[str, Cell]] = {
    "Mask R-CNN": ("mask_rcnn", 800),
    "Cascade": ("cascade", 800),
}  # shorter side, px


@dataclass(frozen=True)
class Column:
    """What stands under a head: its key, the head, and the decimals of the print."""

    key: str
    head: str
    digits: int = 1


@dataclass(frozen=True)
class Doubt:
    """A cell that the paper most likely misprints, or counts in another way than the rest."""

    instead: float  # what is counted here, or printed elsewhere, at the digits of the column
    why: str


@dataclass(frozen=True)
class Row:
    """One printed row."""

    label: str
    model: str | None  # the name that `recipes.architectures.architecture` knows; None: not in this package
    trained_on: str | None  # '1K' or '22K'
    size_px: int | None  # side of the images behind the MACs; None in the tables of detectors
    values: dict[str, Cell]  # by the keys of the columns
    doubts: dict[str, Doubt]

    def counted(self) -> tuple[int, int] | None:
        """(parameters, MACs) as counted here, of the whole detector or segmenter in their tables; None: not buildable."""
        if self.model is None:
            return None
        if self.size_px is not None:
            return listed(self.model, self.size_px)
        kind, side_px = _WHOLES.get(str(self.values.get("detector")), ("upernet", self.values.get("crop_px")))
        return listed_dense(kind, self.model, _whole(side_px) or 0)


@dataclass(frozen=True)
class Table:
    """One printed table."""

    name: str  # its number
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    source: str = PAPER


PARAMS = Column("params_m", "params (M)", 0)
GMACS = Column("gmacs", "GMACs")
TOP1 = Column("top1", "top-1")
DETECTION = (
    Column("detector", "detector"),
    Column("detector_gflops", "GFLOPs", 0),
    Column("fps_a100", "FPS"),
    *(Column(f"box_ap{at}", f"box AP{at}") for at in ("", "50", "75")),
    *(Column(f"mask_ap{at}", f"mask AP{at}") for at in ("", "50", "75")),
)
SEGMENTATION = (
    Column("crop_px", "crop", 0),
    Column("miou_ms", "mIoU"),
    Column("segmenter_params_m", "params (M)", 0),
    Column("segmenter_gflops", "GFLOPs", 0),
)
ROBUSTNESS = (
    GMACS,
    Column("params_m", "params (M)"),
    TOP1,
    Column("mce", "mCE"),
    Column("c_bar", "C-bar"),
    Column("a", "A"),
    Column("r", "R"),
    Column("sketch", "Sketch"),
)


def tables() -> dict[str, Table]:
    """Every table by its number, '1' to '12'."""
    speed = Column("img_s_v100", "img/s V100")
    made = (
        _table("1", "ImageNet-1K accuracy", (PARAMS, GMACS, speed, TOP1), paper_rows.TABLE_1, "data px"),
        _table(
            "2",
            "isotropic ConvNeXt and ViT",
            (PARAMS, GMACS, speed, Column("train_gb", "training GB"), TOP1),
            paper_rows.TABLE_2,
            "px",
        ),
        _table("3", "COCO detection, whole detectors at 1280 x 800", DETECTION, paper_rows.TABLE_3, "data"),
        _table("4", "ADE20K segmentation, whole UperNets", SEGMENTATION, paper_rows.TABLE_4, "data"),
        _table(
            "8",
            "robustness; mCE on ImageNet-C and error on C-bar (lower is better), top-1 on -A, -R and -Sketch",
            ROBUSTNESS,
            paper_rows.TABLE_8,
            "data px",
        ),
        *(_roadmap_table(regime) for regime in REGIMES),
        _table("12", "throughput", (GMACS, Column("img_s_a100", "img/s A100")), paper_rows.TABLE_12, "px"),
    )
    return {table.name: table for table in made}


def table(name: str) -> Table:
    """The table with this number, also as 'table 10' or 'T10'. Raises ConvNeXtError for one that is not here."""
    every = tables()
    number = name.lower().removeprefix("table").removeprefix("t").strip(" _")
    if number not in every:
        raise ConvNeXtError(f"Table '{name}' is not here.{nearest(number, every)} There are: {', '.join(every)}.")
    return every[number]


def _table(name: str, title: str, columns: tuple[Column, ...], rows: Sequence[tuple[Cell, ...]], before: str) -> Table:
    """`before` says what stands between our name of the network and the columns: 'data', 'px', both or neither."""
    made = []
    for label, model, *cells in rows:
        trained_on = str(cells.pop(0)) if "data" in before else None
        size_px = _whole(cells.pop(0)) if "px" in before else None
        values = dict(zip((column.key for column in columns), cells, strict=True))
        own = None if model is None else str(model)
        called = f"{label} {values['detector']}" if "detector" in values else str(label)
        made.append(Row(str(label), own, trained_on, size_px, values, _doubts(name, called, trained_on, size_px)))
    return Table(name, title, columns, tuple(made))


def _roadmap_table(regime: Regime) -> Table:
    number, swin = {
        "t": ("10", ("Swin-T", "swin_tiny", 4.50, 81.30)),
        "b": ("11", ("Swin-B", "swin_base", 15.43, 83.50)),
    }[regime]
    columns = (Column("gmacs", "GMACs", 2), Column("top1", "top-1", 2), Column("std", "+-", 2))
    rows = [
        Row(
            step.name,
            step.config.name,
            "1K",
            224,
            {"gmacs": step.paper_gflops, "top1": step.paper_top1, "std": step.paper_std},
            {}
            if step.likely_gflops is None
            else {"gmacs": Doubt(step.likely_gflops, str(step.misprint).partition(", ")[2])},
        )
        for step in roadmap(regime)
    ]
    label, model, gmacs, top1 = swin
    values: dict[str, Cell] = {"gmacs": gmacs, "top1": top1, "std": None}
    rows.append(Row(label, model, "1K", 224, values, _doubts(number, label, None, 224)))
    title = "from ResNet-50 to ConvNeXt-T" if regime == "t" else "from ResNet-200 to ConvNeXt-B"
    return Table(number, title, columns, tuple(rows))


def _doubts(table: str, label: str, trained_on: str | None, size_px: int | None) -> dict[str, Doubt]:
    place = (table, label, trained_on, size_px)
    return {key[-1]: Doubt(*doubt) for key, doubt in DOUBTS.items() if key[:-1] == place}


def _whole(cell: Cell) -> int | None:
    return None if cell is None else int(cell)
