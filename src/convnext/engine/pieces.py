"""A checkpoint in several files, each written by the process that holds its part, through torch.distributed.checkpoint.

RUN/last/STEP/ has a safetensors file of each process and, written when all of them are on the disk, the index that makes it
a checkpoint. What it replaces is removed only then. torch's own files for this are pickles, which execute what they hold.
"""

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load as load_state
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult

from convnext.engine import checkpoint
from convnext.errors import CheckpointError, ConvNeXtError
from convnext.files import appearing, to_json, write_bytes
from convnext.integrity import FORMAT, INDEX, Cut, Index, Piece, index_text, read_index, seal_of


def start_save(
    folder: Path,
    state: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    *,
    group: dist.ProcessGroup,
    done: Callable[[], None],
) -> "Future[Any]":
    """Copy `state` to the host and write it into `folder` meanwhile; every process calls it at the same step.

    `metadata` is that of the first process, which calls `done` once the checkpoint is whole. `failure_of` says what became
    of it.
    """
    how: dict[str, Any] = {"storage_writer": _Writer(folder, metadata, done), "process_group": group}
    future = async_save(dict(state), **how)
    assert isinstance(future, Future), "the copy is made before it returns"
    return future


def failure_of(saving: "Future[Any]") -> OSError | None:
    """Wait for a save: None, or why the disk of one of the processes refused. Raises any other error."""
    try:
        saving.result()
    except CheckpointException as error:
        reason = _reason(error)
        if isinstance(reason, OSError):
            return reason
        raise reason from None
    return None


def load(folder: Path, state: Mapping[str, Tensor], *, group: dist.ProcessGroup) -> dict[str, Tensor]:
    """Fill `state`, of which every process has its part, from a checkpoint of any number of processes.

    Raises CheckpointError where it holds other tensors, or is damaged.
    """
    index = read_index(folder / INDEX)
    odd = sorted(index.tensors.keys() ^ state.keys())
    odd += [name for name in state if not odd and index.tensors[name].shape != tuple(state[name].shape)]
    if odd:
        raise CheckpointError(f"'{folder}' does not fit its own recipe; first at '{odd[0]}'. Restore it.")
    found = dict(state)
    try:
        load_state(found, storage_reader=_Reader(folder, index), process_group=group)
    except CheckpointException as error:
        raise _reason(error) from None
    return found


def _reason(error: CheckpointException) -> Exception:
    """What happened to the first process that failed, of those that say the most."""
    found = [each for _, (each, _) in sorted(error.failures.items())]
    for kind in (ConvNeXtError, OSError, Exception):
        for each in found:
            if isinstance(each, kind):
                return each
    return RuntimeError(str(error).splitlines()[0])


class _Writer(StorageWriter):
    def __init__(self, folder: Path, metadata: Mapping[str, Any], done: Callable[[], None]):
        self.folder, self.metadata, self.done = folder, metadata, done

    def reset(self, checkpoint_id: Any = None) -> None:
        pass

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        pass

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Of the first process, before any writes: what an attempt that failed has left goes."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        return [replace(plan, storage_data=f"{rank}.safetensors") for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> "torch.futures.Future[list[WriteResult]]":
        tensors, results, file = {}, [], str(plan.storage_data)
        for item in plan.items:
            value = planner.resolve_data(item)
            assert isinstance(value, Tensor), "nothing else is saved"
            first = tuple(item.index.offset or ())
            tensors[Piece(file, first, tuple(value.shape)).name(item.index.fqn)] = value
            results.append(WriteResult(item.index, value.nbytes, file))
        path = self.folder / file
        header = {
            "format": FORMAT,
            "version": str(checkpoint.VERSION),
            "metadata": to_json({"part_of": self.folder.name}),
        }
        with appearing(path) as made:
            checkpoint.write(made, tensors, header)
        written: torch.futures.Future[list[WriteResult]] = torch.futures.Future()
        written.set_result(results)
        return written

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Of the first process, once all files are written: from here on it is the checkpoint."""
        files = {(each.index.fqn, tuple(each.index.offset or ())): each.storage_data for own in results for each in own}
        tensors = {}
        for name, about in metadata.state_dict_metadata.items():
            assert isinstance(about, TensorStorageMetadata)
            boxes = [(tuple(chunk.offsets), tuple(chunk.sizes)) for chunk in about.chunks if prod(chunk.sizes)]
            pieces = tuple(Piece(files[name, first], first, shape) for first, shape in boxes)
            tensors[name] = Cut(checkpoint.kind_of(about.properties.dtype), tuple(about.size), pieces)
        seals = {file: seal_of(self.folder / file) for file in sorted({*files.values()})}
        write_bytes(self.folder / INDEX, index_text(Index(dict(self.metadata), tensors, seals)).encode())
        self.done()

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return False


class _Reader(StorageReader):
    def __init__(self, folder: Path, index: Index):
        self.folder, self.index = folder, index
        self.places = {(name, piece.first): piece for name, cut in index.tensors.items() for piece in cut.pieces}

    def reset(self, checkpoint_id: Any = None) -> None:
        pass

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        found: dict[str, Any] = {}
        for name, cut in self.index.tensors.items():
            chunks = [ChunkStorageMetadata(torch.Size(each.first), torch.Size(each.shape)) for each in cut.pieces]
            about = TensorProperties(dtype=checkpoint.dtype_of(cut.kind))
            found[name] = TensorStorageMetadata(about, torch.Size(cut.shape), chunks)
        return Metadata(found)

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        pass

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> "torch.futures.Future[None]":
        """The boxes that this process holds now, cut from the pieces that the processes of then held."""
        wanted: dict[str, list[Any]] = {}
        for item in plan.items:
            piece = self.places[item.storage_index.fqn, tuple(item.storage_index.offset or ())]
            wanted.setdefault(piece.file, []).append((piece.name(item.storage_index.fqn), item))
        for file, items in wanted.items():
            held = checkpoint.read_some(self.folder / file, {name for name, _ in items}, self.index.files[file])
            for name, item in items:
                box = tuple(slice(at, at + n) for at, n in zip(item.storage_offsets, item.lengths, strict=True))
                target = planner.resolve_tensor(item).detach()
                target.copy_(held[name][box])
                planner.commit_tensor(item, target)
        done: torch.futures.Future[None] = torch.futures.Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return False
