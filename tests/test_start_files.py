"""Where weights lie and what is said beside them: wrappers, folders, parts, the hub's names, classes, mean and std."""

import json
import random
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from checkpoints import checkpoint_of
from convnext.config import ConvNeXtConfig
from convnext.errors import CheckpointError, ConvNeXtError
from convnext.models.convnext import ConvNeXt
from convnext.models.create import create
from convnext.models.start import read_start
from convnext.recipes.architectures import architecture

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def tensors(**options) -> dict[str, Tensor]:
    torch.manual_seed(2)
    model = timm.models.convnext.ConvNeXt(depths=(1, 1, 1, 1), dims=(4, 8, 12, 16), num_classes=3, **options)
    return {key: torch.randn_like(value) for key, value in model.state_dict().items()}


def before(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


WRAPPED = {
    "torch.compile": lambda s: before("_orig_mod.", s),
    "DDP of torch.compile": lambda s: {"model": before("module._orig_mod.", s)},
    "FSDP": lambda s: {k.replace("blocks.0.", "blocks.0._fsdp_wrapped_module."): v for k, v in s.items()},
    "checkpointed blocks": lambda s: {
        k.replace("blocks.0.", "blocks.0._checkpoint_wrapped_module."): v for k, v in s.items()
    },
    "averaged": lambda s: {"n_averaged": torch.tensor(5)} | before("module.", s),
    "Lightning": lambda s: {"state_dict": before("model.", s), "hyper_parameters": {"lr": 1e-3}, "callbacks": {}},
    "Lightning, any attribute": lambda s: {"state_dict": before("my_net.body.", s) | {"loss.weight": torch.ones(3)}},
    "teacher and student": lambda s: {
        **before("student.backbone.", {k: torch.zeros_like(v) for k, v in s.items()}),
        **before("teacher.backbone.", s),
    },
    "model and average": lambda s: {**before("ema_model.", {k: v + 1 for k, v in s.items()}), **before("model.", s)},
    "nested": lambda s: {"state": 1, "network": {"state_dict": s}},
    "DeepSpeed": lambda s: {"module": s, "optimizer": {"x": torch.zeros(2)}},
    "NumPy numbers": lambda s: {
        "state_dict": s,
        "best": np.float64(81.2),
        "epoch": np.int64(3),
        "table": np.zeros((2, 2)),
    },
    "objects beside": lambda s: {
        "model": s,
        "where": Path("runs"),
        "took": timedelta(1),
        "args": SimpleNamespace(lr=1),
    },
}


@pytest.mark.parametrize("case", WRAPPED)
def test_the_network_is_found_in_every_wrapper(tmp_path, case):
    state = tensors()
    torch.save(WRAPPED[case](state), tmp_path / "w.pth")
    start = read_start(tmp_path / "w.pth")
    assert torch.equal(start.tensors["head.weight"], state["head.fc.weight"])
    assert start.config.depths == (1, 1, 1, 1) and len(start.tensors) == len(state)


def test_what_stands_outside_the_network_is_named(tmp_path):
    torch.save({"state_dict": before("net.", tensors()) | {"loss.weight": torch.ones(3)}}, tmp_path / "w.pth")
    assert read_start(tmp_path / "w.pth").notes == ("Only 'net.' is read; left out: loss (1 tensor).",)


def test_a_head_of_another_form_is_left_out_and_an_unknown_tensor_is_not(tmp_path):
    state = {k: v for k, v in tensors().items() if not k.startswith("head.fc")}
    torch.save(state | {"head.fc.1.weight": torch.zeros(3, 16)}, tmp_path / "w.pth")
    start = read_start(tmp_path / "w.pth")
    assert start.config.classes == 0 and start.notes == ("Left out: a head of another form ('head.fc').",)
    torch.save(state | {"extra.weight": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"1 not in the model: extra\.weight"):
        read_start(tmp_path / "w.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32_and_said(tmp_path, dtype):
    save_file({key: value.to(dtype) for key, value in tensors().items()}, tmp_path / "w.safetensors")
    start = read_start(tmp_path / "w.safetensors")
    assert {value.dtype for value in start.tensors.values()} == {torch.float32}
    assert start.notes == (f"{str(dtype).removeprefix('torch.')} read as float32.",)


def test_quantized_weights_are_refused(tmp_path):
    save_file({key: value.to(torch.int8) for key, value in tensors().items()}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="int8: quantized weights are not read"):
        read_start(tmp_path / "w.safetensors")


def in_parts(folder: Path, state: dict[str, Tensor]) -> Path:
    names = list(state)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, keys in parts.items():
        save_file({key: state[key] for key in keys}, folder / file)
    listed = {key: file for file, keys in parts.items() for key in keys}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    return folder / "model.safetensors.index.json"


def test_weights_in_parts_are_read_from_their_folder_and_from_their_index(tmp_path):
    state = tensors()
    index = in_parts(tmp_path, state)
    for source in (tmp_path, index):
        assert len(read_start(source).tensors) == len(state)
    with pytest.raises(CheckpointError, match="is one of several parts: give their folder"):
        read_start(tmp_path / "model-00001-of-00002.safetensors")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "gone.safetensors"}}, "which is not beside it"),
        ({"weight_map": {"a": "../secret.safetensors"}}, "which is not beside it"),
        ({"weight_map": {"a": 3}}, "no 'weight_map'"),
        ([1], "no 'weight_map'"),
    ],
)
def test_an_index_without_its_parts_is_refused_in_one_line(tmp_path, index, message):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=message) as error:
        read_start(tmp_path)
    assert "\n" not in str(error.value)


def described(folder: Path, **files) -> Path:
    save_file(tensors(), folder / "model.safetensors")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_timms_configuration_gives_classes_mean_size_crop_and_licence(tmp_path):
    cfg = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1], "input_size": [3, 288, 288], "crop_pct": 0.95}
    cfg |= {"interpolation": "bicubic", "license": "cc-by-nc-4.0"}
    start = read_start(described(tmp_path, config={"pretrained_cfg": cfg, "label_names": ["a", "b", "c"]}))
    assert (start.mean, start.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    assert (start.size_px, start.eval_crop, start.interpolation) == (288, 0.95, "bicubic")
    assert start.classes == ("a", "b", "c") and start.licence == "CC-BY-NC-4.0"


def test_transformers_configurations_give_classes_and_preprocessing(tmp_path):
    labels = {"id2label": {"0": "cat", "1": "dog", "2": "owl"}}
    images = {"image_mean": [0.4] * 3, "image_std": [0.2] * 3, "size": {"shortest_edge": 224}, "crop_pct": 0.875}
    start = read_start(described(tmp_path, config=labels, preprocessor_config=images | {"resample": 3}))
    assert start.classes == ("cat", "dog", "owl") and start.mean == (0.4, 0.4, 0.4)
    assert (start.size_px, start.eval_crop, start.interpolation) == (224, 0.875, "bicubic")


def test_names_that_a_library_makes_up_are_no_names(tmp_path):
    labels = {"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}
    assert read_start(described(tmp_path, config=labels)).classes is None


def test_open_clips_configuration_gives_its_own_mean_and_the_size(tmp_path):
    content = {"model_cfg": {"vision_cfg": {"image_size": 256}}, "preprocess_cfg": {"mean": CLIP[0], "std": CLIP[1]}}
    start = read_start(described(tmp_path, open_clip_config=content))
    assert (start.mean, start.std, start.size_px) == (*CLIP, 256)


def test_a_file_called_as_timm_calls_its_clip_towers_has_their_mean_and_says_why(tmp_path):
    save_file(tensors(), tmp_path / "convnext_base.clip_laion2b_ft_in1k.safetensors")
    start = read_start(tmp_path / "convnext_base.clip_laion2b_ft_in1k.safetensors")
    assert (start.mean, start.std) == CLIP and start.notes == (
        "Mean and std are those of CLIP, whose image tower this is.",
    )


@pytest.mark.parametrize(
    "content",
    [
        {"pretrained_cfg": {"mean": [0.5, float("nan"), 0.5], "std": [1, 1, 1], "input_size": "x", "crop_pct": 7}},
        {"pretrained_cfg": {"mean": [0.5], "std": [1, 0, 1], "input_size": [], "license": 3}, "id2label": [1, 2]},
        {"pretrained_cfg": [], "label_names": {"a": 1}},
        "text",
    ],
)
def test_values_beside_the_weights_that_are_none_are_not_there(tmp_path, content):
    start = read_start(described(tmp_path, config=content))
    assert (start.mean, start.std, start.size_px, start.eval_crop, start.classes) == (None,) * 5
    assert start.licence == "unknown"


def test_a_run_gives_its_network_its_classes_and_its_preprocessing(tmp_path):
    checkpoint_of("classification", tmp_path, classes=("cat", "dog"))
    for source in (tmp_path, tmp_path / "best.safetensors"):
        start = read_start(source)
        assert start.classes == ("cat", "dog") and start.config.classes == 2 and start.config.name == "atto"
        assert start.mean == (0.485, 0.456, 0.406) and start.size_px == start.record["recipe"]["input"]["size_px"]


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_detector_or_segmenter_of_ours_gives_its_backbone(tmp_path, task):
    start = read_start(checkpoint_of(task, tmp_path))
    assert start.config.widths == (8, 12, 16, 24) and start.config.classes == 0
    assert start.notes[0].startswith("Only 'backbone.network.' is read")


def test_a_network_is_made_from_its_weights_alone(tmp_path):
    """The stem of a run follows its images; whoever names no network, or the run's, gets the run's."""
    run = checkpoint_of("classification", tmp_path)
    for name in (None, "atto"):
        made = create(name, weights=str(run), info=lambda _: None)
        assert made.config.stem == "overlap" and made.config.depths == (1, 1, 1, 1) and made.config.classes == 2
    save_file(tensors(), tmp_path / "w.safetensors")
    assert create(weights=str(tmp_path / "w.safetensors"), info=lambda _: None).config.widths == (4, 8, 12, 16)
    with pytest.raises(CheckpointError, match=r"it holds 'custom' and 'tiny' was asked for"):
        create("tiny", weights=str(tmp_path / "w.safetensors"), info=lambda _: None)
    with pytest.raises(ConvNeXtError, match="Neither a network nor weights"):
        create()


def test_a_tag_names_weights_and_a_network_with_one_is_refused_with_both_ways_out():
    with pytest.raises(ConvNeXtError, match=r"--weights timm:convnext_atto\.d2_in1k .* or --model timm:convnext_atto "):
        architecture("timm:convnext_atto.d2_in1k")
    with pytest.raises(CheckpointError, match="timm's weights have a tag"):
        read_start("timm:convnext_atto")


def damaged(state: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """A few wrong things: a tensor lost, of another shape or kind, under a wrong number or twice."""
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 3)):
        key = chance.choice(list(state))
        kind = chance.randint(0, 5)
        if kind == 0:
            del state[key]
        elif kind == 1:
            state[key] = torch.zeros([chance.randint(0, 3) for _ in range(chance.randint(0, 5))])
        elif kind == 2:
            state[key.replace("0", str(chance.choice([5, 99_999_999, 10**25])))] = state.pop(key)
        elif kind == 3:
            state[f"x.{key}"] = state[key]
        elif kind == 4:
            state[key] = state[key].to(chance.choice([torch.bool, torch.complex64, torch.float8_e4m3fn]))
        else:
            state[f"{key}.bias"] = torch.zeros(1)
    return state


def test_whatever_is_wrong_with_the_tensors_is_one_line(tmp_path):
    whole = ConvNeXt(ConvNeXtConfig(depths=(1, 1), widths=(4, 8), classes=3)).state_dict()
    told = []
    for seed in range(60):
        torch.save(damaged(dict(whole), seed), tmp_path / "w.pth")
        try:
            read_start(tmp_path / "w.pth")
        except CheckpointError as error:
            told.append(str(error))
    assert len(told) > 40 and not any("\n" in line for line in told)


def test_a_pickle_that_holds_itself_and_a_header_that_is_none_are_one_line(tmp_path):
    content: dict[str, object] = {"weight": torch.ones(1)}
    content["model"] = content
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="not tensors by name"):
        read_start(tmp_path / "w.pth")
    record = json.dumps({"recipe": {"model": {"family": "convnext", "eps": -1}}, "classes": 5, "score": "x"})
    header = {"format": "convnext", "version": "1", "metadata": record}
    whole = ConvNeXt(ConvNeXtConfig(depths=(1, 1), widths=(4, 8), classes=3)).state_dict()
    save_file(whole, tmp_path / "best.safetensors", header)
    with pytest.raises(CheckpointError, match="eps = -1 is refused"):
        read_start(tmp_path)


def test_a_configuration_beside_a_file_of_another_name_may_be_a_neighbours(tmp_path):
    described(tmp_path, config={"label_names": ["a", "b", "c"]})
    save_file(tensors(), tmp_path / "other.safetensors")
    assert (
        read_start(tmp_path).classes == ("a", "b", "c") and read_start(tmp_path / "other.safetensors").classes is None
    )
