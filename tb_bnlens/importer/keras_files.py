"""``.keras`` and ``.weights.h5`` files: zip, JSON and HDF5, without TensorFlow and without building the model."""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tb_bnlens.importer.keras_config import batch_norm_settings
from tb_bnlens.importer.saved import (
    LONGEST_VECTOR,
    BadCheckpoint,
    Checkpoint,
    SavedLayer,
    Settings,
    first_line,
    key_order,
    uniquely_named,
)

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
NAMED_FOR_IT = re.compile(r"batch_?norm|(^|_)bn(\d|_|$)", re.IGNORECASE)
"""Groups that are BatchNorm layers by their name. Keras names a group by the class of the layer, or by the
attribute that holds it."""
AVERAGES = {2: 0, 3: 1, 4: 2, 5: 0, 6: 1, 7: 2}
"""Variables of a layer -> position of its moving mean: after gamma and beta, which can be left out. The moving
variance follows, and with ``renorm`` (three variables more) the moving standard deviation."""
RENORM_FROM = 5
LARGEST_CONFIG = 64 * 2**20
MOST_INFLATED = 20
"""Times its size in the archive that a part may have. Keras does not compress; weights shrink by a tenth or so."""


def read_keras(path: Path) -> Checkpoint:
    """A whole model, whose config says momentum and epsilon.

    Raises:
        BadCheckpoint: it is no archive of Keras 3, or its weights cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = _unpacked(archive, CONFIG, LARGEST_CONFIG)
            weights = io.BytesIO(_unpacked(archive, WEIGHTS, math.inf))
    except KeyError as error:
        raise BadCheckpoint(f"the archive lacks a part of what model.save writes ({error.args[0]})") from error
    # zipfile raises all of these for truncated and damaged archives, and for those it cannot unpack.
    except BadCheckpoint:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise BadCheckpoint(f"it is no zip archive, or a truncated one ({first_line(error)})") from error
    try:
        settings = batch_norm_settings(json.loads(config))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadCheckpoint(f"its {CONFIG} is not what model.save writes ({first_line(error)})") from error
    return _read(path, weights, settings)


def _unpacked(archive: zipfile.ZipFile, name: str, largest: float) -> bytes:
    """A part of the archive, unless unpacking it would take more memory than any that Keras writes."""
    entry = archive.getinfo(name)
    if entry.file_size > min(largest, MOST_INFLATED * max(entry.compress_size, 2**20)):
        raise BadCheckpoint(f"its {name} would unpack from {entry.compress_size:,} to {entry.file_size:,} bytes")
    return archive.read(entry)


def read_weights(path: Path) -> Checkpoint:
    """Weights alone; momentum and epsilon have to come from elsewhere.

    Raises:
        BadCheckpoint: it is no HDF5 file that Keras 3 wrote.
    """
    return _read(path, path, {})


@dataclass(frozen=True)
class _Group:
    key: str
    name: str
    path: str
    variables: list[Any]


def _read(path: Path, source: Any, settings: Mapping[str, Settings]) -> Checkpoint:
    try:
        with h5py.File(source, "r") as file:
            groups = list(_walk(file, ()))
            found = [_layer(g, settings.get(g.path)) for g in groups if _is_batch_norm(g, settings)]
            iterations = _iterations(file)
    except Exception as error:  # h5py raises some seven kinds for damaged files, and one file must not cost the others
        raise BadCheckpoint(f"it cannot be read as HDF5 ({first_line(error)})") from error
    order = {name: i for i, name in enumerate(settings)}
    found.sort(key=lambda layer: order.get(layer.name, len(order)))
    return Checkpoint(path, uniquely_named(found), iterations)


def _walk(group: Any, trail: tuple[str, ...]) -> Iterator[_Group]:
    for key in sorted(group, key=key_order):
        child = _inside(group, key)
        if not isinstance(child, h5py.Group) or key == "vars" or (key == "optimizer" and not trail):
            continue
        # Lists of layers are groups without variables and without a name; older Keras 3 stored no names at all.
        own = _inside(child, "vars") if "vars" in child else None
        name = "" if own is None else str(own.attrs.get("name", key))
        child_trail = (*trail, name) if name else trail
        if own is not None:
            yield _Group(key, name, "/".join(child_trail), [_inside(own, str(i)) for i in range(len(own))])
        yield from _walk(child, child_trail)


def _inside(group: Any, key: str) -> Any:
    """A member of a group that lies in this very file.

    HDF5 can point to other files, even to raw bytes: a hostile checkpoint could have any file of this machine read, and
    written into a record that is then passed on.

    Raises:
        ValueError: it lies elsewhere.
    """
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise ValueError(f"{group.name}/{key} is a link, which no checkpoint of Keras holds")
    member = group[key]
    if isinstance(member, h5py.Dataset) and (member.external or member.is_virtual):
        raise ValueError(f"{member.name} is stored in another file, as no checkpoint of Keras is")
    return member


def _is_batch_norm(group: _Group, settings: Mapping[str, Settings]) -> bool:
    shapes = {variable.shape for variable in group.variables}
    if len(group.variables) not in AVERAGES or len(shapes) != 1 or len(shape := next(iter(shapes))) != 1:
        return False
    if shape[0] > LONGEST_VECTOR:
        raise ValueError(f"{group.path} has {shape[0]:,} channels")
    if group.path in settings:
        return True
    named = bool(NAMED_FOR_IT.search(group.key) or NAMED_FOR_IT.search(group.name))
    # No other layer of Keras has four vectors of one length.
    return named or (not settings and len(group.variables) == 4)


def _layer(group: _Group, settings: Settings | None) -> SavedLayer:
    at = AVERAGES[len(group.variables)]
    renorm = len(group.variables) >= RENORM_FROM
    mean, spread = (np.asarray(group.variables[i], np.float64) for i in (at, at + (2 if renorm else 1)))
    return SavedLayer(group.path, mean, spread, renorm, settings)


def _iterations(file: Any) -> int | None:
    # A loss-scaling optimizer wraps the one that counts the steps which changed the weights.
    for place in ("optimizer/inner_optimizer/vars/0", "optimizer/vars/0"):
        variable = file
        for key in place.split("/"):
            variable = _inside(variable, key) if isinstance(variable, h5py.Group) and key in variable else None
        if isinstance(variable, h5py.Dataset) and variable.shape == () and variable.dtype.kind in "iu":
            return int(variable[()])
    return None
