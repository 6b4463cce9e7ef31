"""The BatchNorm layers of a model's ``config.json``, without building the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tb_bnlens.importer.saved import MOST_CALLS, Settings

MARKS = ("momentum", "epsilon", "moving_mean_initializer", "moving_variance_initializer")
"""Keys that a BatchNormalization's config has, and those of subclasses under names of their own have too."""


def batch_norm_settings(config: Any) -> dict[str, Settings]:
    """Path of layer names below the model -> its settings, in the order of the config.

    A subclassed model's config lists no layers, so this is empty for it.
    """
    return dict(_walk(config, (), 1, is_root=True))


def _walk(node: Any, trail: tuple[str, ...], calls: int, *, is_root: bool = False) -> Iterator[tuple[str, Settings]]:
    if isinstance(node, list):
        for item in node:
            yield from _walk(item, trail, calls)
        return
    if not isinstance(node, dict):
        return
    config = node.get("config")
    if not isinstance(config, dict):
        for item in node.values():
            yield from _walk(item, trail, calls)
        return
    nodes = node.get("inbound_nodes")
    calls = min(MOST_CALLS, calls * max(1, len(nodes))) if isinstance(nodes, list) else calls
    name = config.get("name")
    if isinstance(name, str) and not is_root:
        trail = (*trail, name)
    if all(mark in config for mark in MARKS):
        yield "/".join(trail), _settings(node, config, calls)
        return
    for item in config.values():
        yield from _walk(item, trail, calls)


def _settings(node: dict[str, Any], config: dict[str, Any], calls: int) -> Settings:
    axis = config.get("axis", -1)
    synchronized = bool(config.get("synchronized", False))
    extra = [word for word in ("renorm", "synchronized") if config.get(word)]
    return Settings(
        momentum=_number(config, "momentum", 0.0, 1.0),
        epsilon=_number(config, "epsilon", 0.0, 1.0),
        trainable=config.get("trainable") is not False,
        axis=int(axis[0] if isinstance(axis, list) else axis),
        kind=str(node.get("class_name", "BatchNormalization")) + (f" ({', '.join(extra)})" if extra else ""),
        synchronized=synchronized,
        calls=calls,
    )


def _number(config: dict[str, Any], name: str, low: float, high: float) -> float:
    value = config[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name} of {config.get('name')!r} is {value!r}; expected {low:g} to {high:g}")
    return float(value)
