import { useMemo, useRef, useState } from 'preact/hooks';
import { routes } from '../api';
import type { Line, LineSpec } from '../charts/lineSpec';
import { savePicture } from '../download';
import { number, plural } from '../format';
import { useResource, useResources, useView } from '../hooks';
import { KINDS, type Kind, kindLabel, type LossRun, lossChart, MORE_KINDS } from '../models/lossChart';
import { runColor } from '../palette';
import { convergence, paceOf } from '../time';
import { useTimeline } from '../timeline';
import type { Overview } from '../wire';
import { EventList } from './EventList';
import { Legend } from './Legend';
import { type ChartHandle, LineChartBox } from './LineChartBox';
import { type ChartData, Panel } from './Panel';
import { TimeTools } from './TimeTools';

const HEIGHT = 280;
const ALL_KINDS = [...KINDS, ...MORE_KINDS];

/** Whether a line is hidden: optional lines are until they are switched on. A raw line goes with its smooth one, and both edges of a band together. */
function isOff({ id, optional = false }: Line, toggled: ReadonlySet<string>): boolean {
  return toggled.has(id.replace(/:(raw|low)$/, '')) !== optional;
}

export function LossPanel({ overview }: { overview: Overview }) {
  const { run } = overview;
  const own = useResource(useMemo(() => routes.losses(run), [run]));
  const time = useTimeline(overview, own.value);
  const { axis, clock } = time;
  const start = clock.start;
  const compare = useView((v) => v.compare);
  const others = useResources(compare.map((name) => routes.losses(name)));
  const smoothing = useView((v) => v.smoothing);
  const [toggled, setToggled] = useState<ReadonlySet<string>>(new Set());
  const [kind, setKind] = useState<Kind>('inference');
  const [ahead, setAhead] = useState(false);
  const [probe, setProbe] = useState('train');
  const chart = useRef<ChartHandle>(null);
  const many = compare.length > 0;
  const frames = [own.value, ...others.map((other) => other.value)];

  const model = useMemo(() => {
    const runs = [run, ...compare].flatMap((name, i): LossRun[] => {
      const frame = frames[i];
      if (!frame) return [];
      return [
        {
          run: name,
          color: many ? runColor(i) : null,
          frame,
          start: i ? undefined : start,
          losses: i ? null : overview.losses,
          pace: i ? null : paceOf(overview),
        },
      ];
    });
    return lossChart(runs, many ? [kind] : ALL_KINDS, probe, axis, smoothing);
  }, [overview, run, compare, axis, smoothing, kind, probe, start, ...frames]);

  const { range } = time.spec;
  const expected = useMemo(
    () => (many ? null : convergence(overview, clock, axis)),
    [many, overview, clock, axis],
  );
  const spec = useMemo(
    (): LineSpec => ({
      ...time.spec,
      x: model.x,
      lines: model.lines.filter((line) => !isOff(line, toggled)),
      yLabel: `loss${model.scale === 'linear' ? '' : ` (${model.scale})`}`,
      yScale: model.scale,
      yFormat: number,
      expected,
      range: range ?? (ahead ? [model.extent[0], model.forecastEnd] : model.extent),
    }),
    [model, toggled, time, range, ahead, expected],
  );

  // Once the losses are there, and no line is among them.
  const empty = own.value !== null && !model.lines.length;
  const beyond = model.forecastEnd > model.extent[1];
  const hasValidation = [...(own.value?.keys() ?? [])].some((name) => name.startsWith('validation/'));
  const toggle = (id: string) => {
    const next = new Set(toggled);
    if (!next.delete(id)) next.add(id);
    setToggled(next);
  };
  return (
    <Panel
      title="Paired losses"
      class="loss-panel"
      hint={
        many
          ? 'One loss in all chosen runs.'
          : `Course over the run: each point is a probe of one batch at the weights of its step.${overview.losses.batches === null ? '' : ` The verdict is over ${overview.losses.batches} batches, so its figures differ.`} Drag to zoom; click to pin a step.`
      }
      data={() => data(run, model.x, spec)}
      picture={() => {
        const canvas = chart.current?.canvas();
        if (canvas)
          savePicture(
            `${run}-losses.png`,
            canvas,
            `Paired losses · ${run}`,
            spec.lines.filter((l) => l.legend !== false),
          );
      }}
      tools={
        <>
          {many && (
            <label class="inline">
              loss{' '}
              <select value={kind} onChange={(e) => setKind(e.currentTarget.value as Kind)}>
                {ALL_KINDS.map((name) => (
                  <option key={name} value={name}>
                    {kindLabel(name)}
                  </option>
                ))}
              </select>
            </label>
          )}
          {hasValidation && (
            <label class="inline">
              on{' '}
              <select value={probe} onChange={(e) => setProbe(e.currentTarget.value)}>
                <option value="train">training batch</option>
                <option value="validation">validation data</option>
              </select>
            </label>
          )}
          {beyond && !range && (
            <button type="button" class="button small" aria-pressed={ahead} onClick={() => setAhead(!ahead)}>
              Whole forecast
            </button>
          )}
          <TimeTools />
        </>
      }
    >
      {empty ? (
        <p class="nothing">
          {overview.losses.not_evaluated.losses ?? 'No losses have been measured in this run yet.'}
        </p>
      ) : (
        <>
          {expected && (
            <p class="hint">Hatched: where the run is expected to have converged (80% interval).</p>
          )}
          <Legend
            x={model.x}
            lines={model.lines}
            format={number}
            where={spec.where}
            pin={time.pin}
            off={(line) => isOff(line, toggled)}
            onToggle={toggle}
            smoothed={smoothing > 0}
          />
          <LineChartBox
            spec={spec}
            height={HEIGHT}
            handle={chart}
            label={`Paired losses of run ${run} over ${spec.xLabel}, ${plural(model.x.length, 'point')}`}
            onZoom={time.zoom}
            onPick={time.pick}
          />
        </>
      )}
      <EventList events={overview.events} />
      {own.error && !own.value && <p class="banner">{own.error}</p>}
    </Panel>
  );
}

function data(run: string, x: Float64Array, spec: LineSpec): ChartData {
  return {
    name: `${run}-losses`,
    header: [spec.xLabel, ...spec.lines.map((line) => line.label)],
    rows: Array.from(x, (at, i) => [at, ...spec.lines.map((line) => line.values[i] ?? null)]),
  };
}
