import { useMemo } from 'preact/hooks';
import type { LineSpec } from './charts/lineSpec';
import type { Frame } from './frame';
import { useRunStart, useView } from './hooks';
import type { XAxis } from './link';
import { AXIS_LABEL, type Clock } from './models/axis';
import { clockOf } from './models/lossChart';
import { marks, shadeOf, splits, stepAt, X_FORMAT } from './time';
import { togglePin, view } from './view';
import type { Finding, Overview } from './wire';

export interface Timeline {
  axis: XAxis;
  clock: Clock;
  /** Position of the pinned step on the axis. */
  pin: number | null;
  /** The chosen finding, null where none is or where the chart does not show it. */
  finding: Finding | null;
  /** What all charts over the time of a run have in common. */
  spec: Pick<LineSpec, 'xSplits' | 'xLabel' | 'xFormat' | 'where' | 'range' | 'marks' | 'shade' | 'shared'>;
  /** Pins the record nearest to a position, or lets go of it where it is pinned. */
  pick: (x: number) => void;
  zoom: (range: [number, number] | null) => void;
}

/** The x axis of a run: its unit, zoom, pin, events and chosen finding. `frame` holds the steps of the chart's records. */
export function useTimeline(overview: Overview, frame: Frame | null, layer?: number): Timeline {
  const axis = useView((v) => v.axis);
  const range = useView((v) => v.range);
  const step = useView((v) => v.step);
  const rule = useView((v) => v.finding);
  const start = useRunStart(overview.run);
  return useMemo(() => {
    const clock = clockOf(frame, start);
    const chosen = overview.findings.find((f) => f.rule === rule) ?? null;
    const shown = layer === undefined || chosen?.layer_indices.includes(layer);
    const finding = shown ? chosen : null;
    return {
      axis,
      clock,
      finding,
      pin: step === null ? null : clock.position(step, axis),
      spec: {
        xSplits: splits(axis),
        xLabel: AXIS_LABEL[axis],
        xFormat: X_FORMAT[axis],
        where: (x) => stepAt(x, clock, axis),
        range,
        marks: marks(overview, clock, axis, step),
        shade: shadeOf(finding, overview, clock, axis),
        shared: true,
      },
      pick: (x) => togglePin(clock.nearestStep(x, axis)),
      zoom: (zoomed) => view.set({ range: zoomed }),
    };
  }, [overview, frame, start, axis, range, step, rule, layer]);
}
