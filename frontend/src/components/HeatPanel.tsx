import { useLayoutEffect, useMemo, useRef } from 'preact/hooks';
import { routes } from '../api';
import { cssStops } from '../charts/colormap';
import { heatHeight } from '../charts/heatGeometry';
import type { HeatSpec } from '../charts/heatmapPaint';
import { type HeatHandlers, HeatmapView } from '../charts/heatmapView';
import { crosshair } from '../crosshair';
import { savePicture } from '../download';
import { number, steps } from '../format';
import { column } from '../frame';
import { useResource, useTheme, useView } from '../hooks';
import { HEAT_ROWS, type HeatRow } from '../link';
import { neighbour, upperBound } from '../models/axis';
import { type Heat, heatScale, lastEnd, rowHeight } from '../models/heat';
import { depth } from '../models/table';
import { theme } from '../theme';
import { useTimeline } from '../timeline';
import { view } from '../view';
import type { Overview } from '../wire';
import { tooltip, WORDS, type WordKey } from '../words';
import { type ChartData, Panel } from './Panel';
import { TimeTools } from './TimeTools';

const ROW_WORD: Record<HeatRow, WordKey> = {
  distance_rms: 'distance',
  steps_to_converge: 'steps',
  mean_error_p95: 'mean_error',
  variance_error_p95: 'variance_error',
  variance_ratio: 'variance_ratio',
};

export function HeatPanel({ overview, layer }: { overview: Overview; layer: number | null }) {
  const { run } = overview;
  const row = useView((v) => v.row);
  const series = useResource(useMemo(() => routes.series(run, row), [run, row]));
  const frame = series.value;
  const time = useTimeline(overview, frame);
  const { axis, clock } = time;
  const box = useRef<HTMLDivElement>(null);
  const heatmap = useRef<HeatmapView | null>(null);
  const readout = useRef<HTMLParagraphElement>(null);

  // Apart from the rest, so that choosing a layer paints no cell again.
  const heat = useMemo((): Heat | null => {
    if (!frame) return null;
    const [, layers] = frame.get('values')?.shape ?? [0, 0];
    return { x: clock.all(axis), values: column(frame, 'values'), layers };
  }, [frame, clock, axis]);
  const columns = heat?.layers ?? 0;
  const layers = useMemo(
    () => overview.layers.filter(({ index }) => index < columns).sort((a, b) => depth(a) - depth(b)),
    [overview, columns],
  );
  const order = useMemo(() => layers.map(({ index }) => index), [layers]);
  const spec = useMemo((): HeatSpec | null => {
    if (!heat) return null;
    const { range, shade, xFormat, xLabel } = time.spec;
    return {
      heat,
      scale: heatScale(row),
      order,
      names: layers.map(({ name }) => name),
      rowHeight: rowHeight(order.length),
      range: range ?? [heat.x[0] ?? 0, lastEnd(heat.x)],
      selected: layer,
      lit: time.finding?.layer_indices.length ? new Set(time.finding.layer_indices) : null,
      shade,
      pin: time.pin,
      xFormat,
      xLabel,
      axis,
    };
  }, [heat, order, layers, time, row, layer]);

  const latest = useRef<HeatHandlers | null>(null);
  const cell = (index: number, x: number): string => {
    if (!spec || !frame) return '';
    const record = recordAt(spec.heat, x);
    const value = spec.heat.values[record * spec.heat.layers + index];
    const { label, unit } = WORDS[ROW_WORD[row]];
    const text = row === 'steps_to_converge' ? steps(value) : number(value);
    const name = overview.layers.find((l) => l.index === index)?.name ?? `layer ${index}`;
    return `${name} · step ${number(column(frame, 'steps')[record])} · ${label} ${text} ${unit}`;
  };
  latest.current = {
    // The readout follows the pointer, so it does not go through a render.
    onHover: (at) => {
      if (readout.current) readout.current.textContent = at ? cell(at.layer, at.x) : '';
    },
    onPick: (index, x) => {
      if (spec) open(index, column(frame, 'steps')[recordAt(spec.heat, x)] ?? null);
    },
    onZoom: time.zoom,
  };
  // Before the paint, so that the page comes up with it and not a frame ahead of it.
  useLayoutEffect(() => {
    const made = new HeatmapView(box.current as HTMLDivElement, {
      onHover: (at) => latest.current?.onHover(at),
      onPick: (index, x) => latest.current?.onPick(index, x),
      onZoom: (zoomed) => latest.current?.onZoom(zoomed),
    });
    heatmap.current = made;
    return () => made.destroy();
  }, []);
  useLayoutEffect(() => {
    if (spec) heatmap.current?.update(spec);
  }, [spec]);

  const onKeyDown = (event: KeyboardEvent) => {
    if (!spec) return;
    const at = crosshair.get();
    const say = (index: number, x: number) => {
      if (readout.current) readout.current.textContent = cell(index, x);
    };
    if (event.key === 'Enter' && at !== null) time.pick(at);
    else if (event.key === 'ArrowUp' || event.key === 'ArrowDown') {
      const row = layer === null ? -1 : spec.order.indexOf(layer);
      const to = Math.min(Math.max(row + (event.key === 'ArrowDown' ? 1 : -1), 0), spec.order.length - 1);
      view.set({ layer: spec.order[to] });
      say(spec.order[to], at ?? spec.range[1]);
    } else if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') {
      const [from, until] = spec.range;
      const shown = spec.heat.x.filter((x) => x >= from && x <= until);
      const stride = event.shiftKey ? Math.max(1, Math.round(shown.length / 20)) : 1;
      const to = neighbour(shown, at, event.key === 'ArrowLeft' ? -stride : stride);
      crosshair.move(to, null);
      if (layer !== null && to !== null) say(layer, to);
    } else return;
    event.preventDefault();
  };
  const height = spec ? heatHeight(spec.order.length, spec.rowHeight) : 200;
  const word = WORDS[ROW_WORD[row]];
  return (
    <Panel
      title="Layers × steps"
      class="heat-panel"
      hint="Layers in network order, input at the top. Click a cell to open its layer at that step; drag to zoom."
      data={() => heatData(run, row, spec, overview)}
      picture={() => {
        const canvas = heatmap.current?.canvas();
        if (!canvas) return;
        const { low, high } = keyWords(row);
        const scale = { stops: cssStops(theme(), heatScale(row).diverging), low, high };
        savePicture(`${run}-${row}.png`, canvas, `${word.label} (${word.unit}) · ${run}`, [], scale);
      }}
      tools={
        <>
          <TimeTools />
          <div class="segmented" role="group" aria-label="What the heatmap shows">
            {HEAT_ROWS.map((name) => (
              <button
                key={name}
                type="button"
                aria-pressed={name === row}
                data-tip={tooltip(ROW_WORD[name])}
                onClick={() => view.set({ row: name })}
              >
                {WORDS[ROW_WORD[name]].label}
              </button>
            ))}
          </div>
        </>
      }
    >
      <div class="heat-head">
        <p class="readout" ref={readout} aria-live="polite" />
        <ColorKey row={row} />
      </div>
      <div
        class="heat"
        ref={box}
        style={{ height: `${height}px` }}
        tabIndex={0}
        role="application"
        aria-roledescription="heatmap"
        aria-label={`${word.label} of ${overview.layers.length} layers over ${time.spec.xLabel}. Up and down select a layer, left and right a step; Enter pins the step. Export has the numbers as a table.`}
        onKeyDown={onKeyDown}
      />
      {series.error && !frame && <p class="banner">{series.error}</p>}
    </Panel>
  );
}

/** The record that a position shows: the last one at or before it. */
function recordAt({ x }: Heat, at: number): number {
  return Math.max(0, upperBound(x, at) - 1);
}

/** Opens a layer at a step, and brings its detail into view. */
function open(layer: number, step: number | null): void {
  view.set({ layer, step });
  document.querySelector('.detail-place')?.scrollIntoView({ block: 'start', behavior: 'smooth' });
}

/** What either end of the colours means. */
function keyWords(row: HeatRow): { low: string; high: string } {
  const { low, high, diverging } = heatScale(row);
  const { unit } = WORDS[ROW_WORD[row]];
  const [below, above] = diverging ? ['moving variance smaller ', ' moving variance larger'] : ['', ''];
  return { low: `${below}≤ ${number(low)}`, high: `≥ ${number(high)} ${unit}${above}` };
}

/** The colour scale, and how an estimate of never is drawn. */
function ColorKey({ row }: { row: HeatRow }) {
  const colors = useTheme();
  const scale = heatScale(row);
  const { low, high } = keyWords(row);
  const never = row === 'steps_to_converge';
  const label = `Colour: ${low} to ${high}, log scale${never ? '; hatched: never' : ''}; blank: not known`;
  return (
    <div class="color-key" role="img" aria-label={label}>
      <span>{low}</span>
      <span
        class="ramp"
        style={{ background: `linear-gradient(to right, ${cssStops(colors, scale.diverging).join(', ')})` }}
      >
        <i>{number(Math.sqrt(scale.low * scale.high))}</i>
      </span>
      <span>{high}</span>
      <span class="never">
        {never && (
          <>
            <i /> never,{' '}
          </>
        )}
        blank: not known
      </span>
    </div>
  );
}

function heatData(run: string, row: HeatRow, spec: HeatSpec | null, overview: Overview): ChartData {
  const layers = overview.layers.slice().sort((a, b) => depth(a) - depth(b));
  const rows = spec
    ? Array.from(spec.heat.x, (x, record) => [
        x,
        ...layers.map(({ index }) => written(spec.heat.values[record * spec.heat.layers + index], row)),
      ])
    : [];
  return { name: `${run}-${row}`, header: [spec?.xLabel ?? 'step', ...layers.map(({ name }) => name)], rows };
}

/** JSON has no infinity, and "never" is not "not known". */
function written(value: number, row: HeatRow): number | string {
  if (value !== Number.POSITIVE_INFINITY) return value;
  return row === 'steps_to_converge' ? 'never' : 'infinite';
}
