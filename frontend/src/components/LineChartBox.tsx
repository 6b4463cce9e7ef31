import type { Ref } from 'preact';
import { useImperativeHandle, useLayoutEffect, useRef } from 'preact/hooks';
import { LineChart } from '../charts/lineChart';
import type { LineHandlers, LineSpec } from '../charts/lineSpec';
import { crosshair } from '../crosshair';
import { neighbour } from '../models/axis';

export interface ChartHandle {
  canvas(): HTMLCanvasElement | null;
}

interface Props extends LineHandlers {
  spec: LineSpec;
  height: number;
  /** What the chart shows, for who cannot see it. */
  label: string;
  handle?: Ref<ChartHandle>;
}

/** A line chart with its keyboard: arrows move the crosshair, Enter pins the step. */
export function LineChartBox({ spec, height, label, handle, onZoom, onPick }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const chart = useRef<LineChart | null>(null);
  const handlers = useRef<LineHandlers>({});
  handlers.current = { onZoom, onPick };
  // Before the paint, so that the page comes up with its charts and not a frame ahead of them.
  useLayoutEffect(() => {
    chart.current = new LineChart(box.current as HTMLDivElement, height, {
      onZoom: (range) => handlers.current.onZoom?.(range),
      onPick: (x) => handlers.current.onPick?.(x),
    });
    return () => chart.current?.destroy();
  }, [height]);
  useLayoutEffect(() => chart.current?.update(spec), [spec]);
  useImperativeHandle(handle ?? null, () => ({ canvas: () => chart.current?.canvas() ?? null }), []);

  const onKeyDown = (event: KeyboardEvent) => {
    const at = crosshair.get();
    // Not into the forecast that lies past the edge.
    const x = spec.range ? spec.x.filter((v) => v <= (spec.range as readonly number[])[1]) : spec.x;
    if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') {
      const stride = event.shiftKey ? Math.max(1, Math.round(x.length / 20)) : 1;
      crosshair.move(neighbour(x, at, event.key === 'ArrowLeft' ? -stride : stride), null);
    } else if (event.key === 'Enter' && at !== null) onPick?.(at);
    else return;
    event.preventDefault();
  };
  return (
    <div
      class="chart"
      ref={box}
      style={{ height: `${height}px` }}
      tabIndex={0}
      role="application"
      aria-roledescription="chart"
      aria-label={label}
      onKeyDown={onKeyDown}
    />
  );
}
