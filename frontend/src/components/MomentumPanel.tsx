import { useMemo, useRef } from 'preact/hooks';
import type { LineSpec } from '../charts/lineSpec';
import { savePicture } from '../download';
import { momentum as beta, count, number } from '../format';
import { useView } from '../hooks';
import { nullable } from '../models/align';
import { origin } from '../models/losses';
import { measuredAt, type Replays, updates, withOwn, worstAt } from '../models/momentum';
import { scaleFor } from '../models/scale';
import type { LayerReport, Overview } from '../wire';
import { type ChartHandle, LineChartBox } from './LineChartBox';
import { MomentumSlider, WhatIf } from './MomentumSlider';
import { Panel } from './Panel';
import { Term } from './Tip';

const HEIGHT = 190;

/** The inference loss with other momentum values, and steps to converge, lag and noise with any. */
export function MomentumPanel({ overview }: { overview: Overview }) {
  const { losses, layers, tolerance, run, framework } = overview;
  const shown = (kept: number | null) => beta(kept, framework);
  const chosen = useView((v) => v.momentum);
  const chart = useRef<ChartHandle>(null);
  const usual = median(layers.map((layer) => layer.momentum_effective ?? layer.momentum));
  const current = chosen ?? usual;
  const worst = useMemo(() => worstAt(layers, tolerance, current), [layers, tolerance, current]);
  const own = sharedMomentum(layers);
  const replayed = useMemo(() => withOwn(losses, own), [losses, own]);
  const spec = useMemo((): LineSpec | null => {
    // One point has nothing to be compared with.
    if (replayed.length < 2) return null;
    // Evenly spaced, because 1 - momentum is what matters and it spans three decades.
    const replays = replayed.map(({ momentum }) => momentum);
    const points = replayed.map(({ momentum, loss }, at) => ({ at, loss, own: momentum === own }));
    const values = nullable(points.map(({ loss }) => loss ?? Number.NaN));
    const ownValues = values.map((value, i) => (points[i].own ? value : null));
    return {
      x: Float64Array.from(points, ({ at }) => at),
      lines: [
        { id: 'replayed', label: 'inference, replayed', color: 'inference', width: 2, values },
        {
          id: 'points',
          label: 'replayed',
          legend: false,
          color: 'inference',
          width: 7,
          points: true,
          values,
        },
        { id: 'own', label: 'this run', color: 'text', width: 10, points: true, values: ownValues },
        {
          id: 'batch',
          label: 'batch statistics',
          color: 'batch',
          width: 1.25,
          dash: [6, 4],
          points: false,
          values: points.map(() => losses.batch),
        },
      ],
      xLabel: 'momentum',
      xSplits: () => replayed.map((_, i) => i),
      xFormat: (at) => (Number.isInteger(at) && replayed[at] ? shown(replayed[at].momentum) : ''),
      where: (at) => {
        const point = points.find((each) => each.at === at);
        return point?.own ? `momentum ${shown(own)}, this run` : `momentum ${shown(replays[Math.round(at)])}`;
      },
      yLabel: 'loss now',
      yScale: scaleFor([...values, losses.batch]),
      yFormat: number,
      range: [-0.35, replayed.length - 0.65],
      marks: [{ x: place(replays, current), label: `momentum ${shown(current)}`, kind: 'value' }],
      shade: null,
      shared: false,
    };
  }, [losses, replayed, current, own, framework]);
  return (
    <Panel
      title={spec ? 'Momentum, replayed' : 'Momentum, what if'}
      class="momentum-panel"
      hint={
        losses.replayed.length > 0 &&
        `Inference loss at the weights of step ${count(losses.step)} with other momentum values, measured (${origin(losses)}). The large dot is this run.`
      }
      data={() => ({
        name: `${run}-momentum`,
        header: ['momentum', 'inference loss, replayed'],
        rows: losses.replayed.map(({ momentum, loss }) => [momentum, loss]),
      })}
      picture={() => {
        const canvas = chart.current?.canvas();
        if (canvas) savePicture(`${run}-momentum.png`, canvas, `Inference loss by momentum · ${run}`, []);
      }}
    >
      {spec ? (
        <LineChartBox
          spec={spec}
          height={HEIGHT}
          handle={chart}
          label="Inference loss replayed with other momentum values"
        />
      ) : (
        <p class="nothing">{whyNoReplay(overview)} Below is what follows from the statistics.</p>
      )}
      <MomentumSlider value={current} usual={usual} framework={framework} replays={replayed} />
      <WhatIf {...worst}>
        {spec && <LossThere measured={measuredAt(replayed, current)} replays={replayed} shown={shown} />}
      </WhatIf>
    </Panel>
  );
}

/** Why there is no loss with other momentum values. */
function whyNoReplay({ checked, losses: { not_evaluated } }: Overview): string {
  if (checked) return 'A check does not replay other momentum values: that takes a record of the training.';
  if ('losses' in not_evaluated) return 'No losses were measured, so none is replayed.';
  return not_evaluated.replayed ?? 'The loss with other momentum values has not been measured yet.';
}

interface LossThereProps {
  /** At the momentum of the slider: one replay, those on either side of it, or none. */
  measured: Replays;
  replays: Replays;
  shown: (momentum: number) => string;
}

/** The loss at the momentum of the slider, as far as it was measured: nothing is interpolated. */
function LossThere({ measured, replays, shown }: LossThereProps) {
  const ends = (of: Replays) => of.map(({ momentum }) => shown(momentum)).join(' and ');
  const outer = [replays[0], replays[replays.length - 1]];
  return (
    <div>
      <dt>
        <Term k="replayed" />
      </dt>
      <dd>
        {measured.length ? measured.map(({ loss }) => number(loss)).join(' … ') : '–'}
        {measured.length !== 1 && (
          <span class="of">
            {measured.length ? `at ${ends(measured)}, measured` : `measured between ${ends(outer)} only`}
          </span>
        )}
      </dd>
    </div>
  );
}

/** The momentum of the run, where all layers that update have the same one. */
function sharedMomentum(layers: readonly LayerReport[]): number | null {
  const found = layers.filter(updates).map((layer) => layer.momentum_effective ?? layer.momentum);
  return found.length && found.every((value) => Math.abs(value - found[0]) < 1e-6) ? found[0] : null;
}

function median(values: number[]): number {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  return sorted.length ? sorted[sorted.length >> 1] : 0.99;
}

/** Where a momentum lies between the replayed ones, by 1 - momentum on a log scale. */
function place(replays: readonly number[], value: number): number {
  const depth = (b: number) => -Math.log(Math.max(1 - b, 1e-9));
  const after = replays.findIndex((m) => m >= value);
  if (after === 0) return 0;
  if (after < 0) return replays.length - 1;
  const [low, high] = [depth(replays[after - 1]), depth(replays[after])];
  return after - 1 + (depth(value) - low) / (high - low);
}
