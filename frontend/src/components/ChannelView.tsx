import { useMemo, useRef, useState } from 'preact/hooks';
import { routes } from '../api';
import type { LineSpec } from '../charts/lineSpec';
import { savePicture } from '../download';
import { count, number, plural } from '../format';
import { column } from '../frame';
import { useResource, useView } from '../hooks';
import { nearest } from '../models/axis';
import { channelPoints, channelScale, type Statistic, worstChannels } from '../models/channels';
import { logTicks, ticks } from '../models/ticks';
import type { LayerReport, Overview } from '../wire';
import { type ChartHandle, LineChartBox } from './LineChartBox';
import { Exports } from './Panel';
import { Num } from './Tip';

const WORST = 5;

/** Batch value against moving value, a dot for each channel; on the diagonal they agree. */
export function ChannelView({ overview, layer }: { overview: Overview; layer: LayerReport }) {
  const { run } = overview;
  const {
    value: frame,
    error,
    loading,
  } = useResource(useMemo(() => routes.channels(run, layer.index), [run, layer.index]));
  const pin = useView((v) => v.step);
  const [statistic, setStatistic] = useState<Statistic>('variance');
  const chart = useRef<ChartHandle>(null);
  const stepsOf = column(frame, 'steps');
  const snapshot = pin === null ? stepsOf.length - 1 : nearest(stepsOf, pin);
  // As many as came, whatever the manifest says.
  const recorded = frame?.get('values')?.shape[2] ?? 0;
  const points = useMemo(() => {
    if (!frame || snapshot < 0) return null;
    const data = { steps: stepsOf, values: column(frame, 'values'), channels: recorded };
    return channelPoints(data, snapshot, statistic, layer.epsilon);
  }, [frame, snapshot, statistic, recorded, layer.epsilon]);
  const worst = useMemo(() => (points ? worstChannels(points, WORST) : []), [points]);
  const spec = useMemo(() => {
    const finite = points?.filter((p) => Number.isFinite(p.batch) && Number.isFinite(p.moving));
    return finite?.length ? scatter(finite, worst, statistic, layer.epsilon) : null;
  }, [points, worst, statistic, layer.epsilon]);
  if (points && recorded !== layer.channels) {
    return (
      <p class="nothing">
        The snapshot has {plural(recorded, 'channel')} but the layer has {count(layer.channels)}, so channels
        are not shown.
      </p>
    );
  }
  if (!points) {
    return (
      <p class="nothing">
        {error ??
          (loading
            ? 'Loading the channels…'
            : 'No channels are recorded yet. A run has a few snapshots of them.')}
      </p>
    );
  }
  return (
    <section class="sub" aria-label="Channels">
      <Exports
        title="Channels"
        data={() => ({
          name: `${run}-${layer.name}-channels-${statistic}`,
          header: ['channel', `batch ${statistic}`, `moving ${statistic}`, 'distance, sd'],
          rows: points.map((p) => [p.channel, p.batch, p.moving, p.distance]),
        })}
        picture={() => {
          const canvas = chart.current?.canvas();
          if (canvas)
            savePicture(`${run}-${layer.name}-channels.png`, canvas, `Channels · ${layer.name}`, []);
        }}
      >
        <h3>
          Channels <span class="muted">at step {count(stepsOf[snapshot])}</span>
        </h3>
        <div class="segmented" role="group" aria-label="Statistic">
          {(['variance', 'mean'] as const).map((name) => (
            <button
              key={name}
              type="button"
              aria-pressed={name === statistic}
              onClick={() => setStatistic(name)}
            >
              {name}
            </button>
          ))}
        </div>
      </Exports>
      <div class="channel-row">
        {spec && (
          <LineChartBox
            spec={spec}
            height={210}
            handle={chart}
            label={`Batch ${statistic} against moving ${statistic} of ${layer.channels} channels`}
          />
        )}
        <table class="worst">
          <caption>Largest distance</caption>
          <thead>
            <tr>
              <th scope="col">channel</th>
              <th scope="col">batch</th>
              <th scope="col">moving</th>
              <th scope="col">sd</th>
            </tr>
          </thead>
          <tbody>
            {worst.map((p) => (
              <tr key={p.channel}>
                <th scope="row">{p.channel}</th>
                <td>{number(p.batch)}</td>
                <td>{number(p.moving)}</td>
                <td>
                  <Num k="distance">{number(p.distance)}</Num>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

type Points = ReturnType<typeof channelPoints>;

function scatter(points: Points, worst: Points, statistic: Statistic, epsilon: number): LineSpec {
  const named = new Set(worst.map((p) => p.channel));
  const { moving, batch, log } = channelScale(points, statistic, epsilon);
  const x = Float64Array.from(moving, (value) => (log ? Math.log10(value) : value));
  const unit = statistic === 'mean' ? 'activation' : 'activation²';
  const only = (wanted: boolean) => batch.map((v, i) => (named.has(points[i].channel) === wanted ? v : null));
  return {
    x,
    lines: [
      {
        id: 'agree',
        label: 'agreement',
        color: 'muted',
        width: 1,
        dash: [4, 4],
        points: false,
        values: moving,
      },
      { id: 'channels', label: 'channel', color: 'batch', width: 4, points: true, values: only(false) },
      {
        id: 'worst',
        label: 'largest distance',
        color: 'inference',
        width: 7,
        points: true,
        values: only(true),
      },
    ],
    xLabel: `moving ${statistic} (${unit}${log ? ', log' : ''})`,
    xFormat: (at) => number(log ? 10 ** at : at),
    xSplits: (from, to, width) =>
      log ? decades(10 ** from, 10 ** to, width).map(Math.log10) : ticks(from, to, width / 60, 'value'),
    yLabel: `batch ${statistic}${log ? ' (log)' : ''}`,
    yScale: log ? 'log' : 'linear',
    yFormat: number,
    range: padded(x, log),
    marks: [],
    shade: null,
    shared: false,
  };
}

/** Labels of a log axis: whole decades in a long range, round numbers in a short one. */
function decades(low: number, high: number, width: number): number[] {
  if (high / low > 100) return logTicks(low, high, [1]);
  return high / low > 5 ? logTicks(low, high) : ticks(low, high, width / 60, 'value');
}

/** The ends of the axis. Channels that hardly differ get some room, or else all labels would be one number. */
function padded(x: Float64Array, log: boolean): [number, number] {
  const [low, high] = [x[0], x[x.length - 1]];
  const room = Math.max((high - low) * 0.06, log ? 0.05 : Math.abs(low) * 0.02) || 0.1;
  return [low - room, high + room];
}
