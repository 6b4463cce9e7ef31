"""Points of one run from TensorBoard's data provider, however much of them it can give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorboard.context import RequestContext
from tensorboard.data import provider
from tensorboard.errors import PublicError

# The provider has sampled already, when it loaded; 0 would mean none rather than all.
ALL_POINTS = 1_000_000
# Tried in turn where a read fails: one tensor that cannot be decoded, or a reply over gRPC's limit of 256 MiB, fails
# the whole read.
FEWER_POINTS = (ALL_POINTS, 512, 128, 16, 1)


class Unreadable(RuntimeError):
    """The data provider returned nothing of a run's record."""


def read_points(
    data: provider.DataProvider,
    experiment_id: str,
    ctx: RequestContext,
    run_id: str,
    plugin_name: str,
    tags: Sequence[str],
) -> tuple[dict[str, list[Any]], tuple[str, ...]]:
    """Points by tag, in one read. If that fails, read each tag alone, with fewer points if necessary.

    Returns:
        The ``TensorDatum`` values of each tag in the order of writing, and sentences on what could not be read.

    Raises:
        Unreadable: the provider fails for every tag.
    """

    def read(chosen: Sequence[str], downsample: int) -> dict[str, list[Any]]:
        reply = data.read_tensors(
            ctx,
            experiment_id=experiment_id,
            plugin_name=plugin_name,
            downsample=downsample,
            run_tag_filter=provider.RunTagFilter(runs=[run_id], tags=chosen),
        )
        return {tag: list(series) for tag, series in reply.get(run_id, {}).items()}

    try:
        return read(tags, ALL_POINTS), ()
    except PublicError:
        raise
    except Exception as error:  # providers raise gRPC's, NumPy's and TensorBoard's own, and one tag must not cost all
        failure: Exception = error
    points: dict[str, list[Any]] = {}
    problems: tuple[str, ...] = ()
    for tag in tags:
        for downsample in FEWER_POINTS:
            try:
                points.update(read([tag], downsample))
            except Exception as error:
                failure = error
                continue
            if downsample != ALL_POINTS:
                problems += (
                    f"{tag} could not be read completely ({_brief(failure)}); "
                    f"{len(points.get(tag, []))} of its records are shown.",
                )
            break
        else:
            problems += (f"{tag} could not be read ({_brief(failure)}).",)
    if not points:
        raise Unreadable(f"TensorBoard's data provider failed for this run ({_brief(failure)})") from failure
    return points, problems


def _brief(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
