"""The listed sizes: each is counted again, to the unit, and the commands that print them load no torch."""

import subprocess
import sys

import pytest

from convnext.errors import number_of
from convnext.models.profile import measure
from convnext.recipes.architectures import architecture
from convnext.recipes.baselines import BASELINES
from convnext.recipes.listing import GROUPS, classifiers, detectors, segmenters
from convnext.recipes.roadmap import REGIMES, roadmap
from convnext.recipes.sizes import DETECTORS, OTHER_SIZES, SEGMENTERS, STEP_SIZES
from convnext.studies.paper.published import tables
from convnext.tasks.detection.build import PUBLISHED, detector_values
from convnext.tasks.detection.profile import cost
from convnext.tasks.segmentation import profile as segmentation

# The classifiers of SIZES are counted in test_baselines.


@pytest.mark.parametrize("name", STEP_SIZES)
def test_the_listed_size_of_a_step_is_what_counting_gives(name):
    *size, size_px = STEP_SIZES[name]
    assert size_px == 224 and measure(architecture(name), size_px) == tuple(size)


@pytest.mark.parametrize(("name", "size_px"), OTHER_SIZES)
def test_the_listed_size_at_another_resolution_is_what_counting_gives(name, size_px):
    assert measure(architecture(name), size_px) == OTHER_SIZES[name, size_px]


@pytest.mark.parametrize("name", DETECTORS)
def test_the_listed_size_of_a_detector_is_what_counting_gives(name):
    found = cost(*detector_values(name))
    assert (found.params, found.published) == DETECTORS[name]


@pytest.mark.parametrize("name", SEGMENTERS)
def test_the_listed_size_of_a_segmenter_is_what_counting_gives(name):
    *size, side_px = SEGMENTERS[name]
    found = segmentation.published_cost(name.removeprefix("upernet_").removesuffix("_640"), side_px)
    assert (found.params, found.published) == tuple(size)


def test_every_published_network_is_listed_under_its_group():
    assert list(STEP_SIZES) == [step.config.name for regime in REGIMES for step in roadmap(regime)]
    assert set(PUBLISHED) <= set(DETECTORS) and set(segmentation.PUBLISHED) <= set(SEGMENTERS)
    assert [row["name"] for row in detectors()] == list(DETECTORS)
    assert {row["name"]: row["height"] for row in segmenters()} == {name: size[2] for name, size in SEGMENTERS.items()}
    groups = {row["name"]: row["group"] for row in classifiers()}
    assert set(groups.values()) == set(GROUPS)
    assert {name for name, group in groups.items() if group == "baseline"} == set(BASELINES)
    assert (groups["tiny"], groups["v2_tiny"], groups["iso_base"]) == ("v1", "v2", "isotropic")
    assert groups["roadmap_b:gelu"] == "roadmap_b"


def test_every_network_of_the_papers_tables_is_listed_at_its_resolution():
    rows = [row for table in tables().values() for row in table.rows]
    assert [row.label for row in rows if row.counted() is None] == ["RVT-S*", "RVT-B*"]


@pytest.mark.parametrize(
    "arguments",
    [["roadmap"], ["roadmap", "--json"], ["paper"], ["paper", "1", "3", "10"], ["models"], ["models", "--json"]],
)
def test_tables_and_lists_are_printed_without_torch(arguments):
    code = (
        "import sys; from convnext.cli import main; status = main(sys.argv[1:]); "
        "sys.exit(status or bool({'torch', 'timm', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout and not done.stderr


def test_one_thing_is_told_in_the_singular():
    assert [number_of(n, "epoch") for n in (0, 0.5, 1, 1.0, 2)] == [
        *("0 epochs", "0.5 epochs", "1 epoch", "1 epoch", "2 epochs")
    ]
    assert number_of(9469, "image") == "9,469 images" and number_of(1, "class", "classes") == "1 class"
    assert number_of(3, "class", "classes") == "3 classes"
