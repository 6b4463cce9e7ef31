import { useMemo, useRef } from 'preact/hooks';
import type { LineSpec } from '../charts/lineSpec';
import { savePicture } from '../download';
import { momentum as beta, number } from '../format';
import { useView } from '../hooks';
import { nullable } from '../models/align';
import { updates, worstAt } from '../models/momentum';
import { scaleFor } from '../models/scale';
import type { Overview } from '../wire';
import { type ChartHandle, LineChartBox } from './LineChartBox';
import { MomentumSlider, WhatIf } from './MomentumSlider';
import { Panel } from './Panel';

const HEIGHT = 190;

/** What the inference loss would be now at other momenta, and what waiting would take at any. */
export function MomentumPanel({ overview }: { overview: Overview }) {
  const { losses, layers, tolerance, run } = overview;
  const chosen = useView((v) => v.momentum);
  const chart = useRef<ChartHandle>(null);
  const usual = median(layers.map((layer) => layer.momentum_effective ?? layer.momentum));
  const current = chosen ?? usual;
  const worst = useMemo(() => worstAt(layers, tolerance, current), [layers, tolerance, current]);
  const spec = useMemo((): LineSpec | null => {
    const replayed = losses.replayed.slice().sort((a, b) => a.momentum - b.momentum);
    if (!replayed.length) return null;
    // Evenly spaced: what matters is 1 - momentum, which spans three decades.
    const x = Float64Array.from(replayed, (_, i) => i);
    const values = nullable(replayed.map(({ loss }) => loss));
    const flat = (value: number | null) => replayed.map(() => value);
    return {
      x,
      lines: [
        { id: 'replayed', label: 'inference, replayed', color: 'inference', width: 2, values },
        { id: 'points', label: '', color: 'inference', width: 7, points: true, values },
        {
          id: 'batch',
          label: 'batch',
          color: 'batch',
          width: 1.25,
          dash: [6, 4],
          points: false,
          values: flat(losses.batch),
        },
      ],
      xLabel: 'momentum',
      xSplits: () => replayed.map((_, i) => i),
      xFormat: (at) => (Number.isInteger(at) && replayed[at] ? beta(replayed[at].momentum) : ''),
      yLabel: 'loss now',
      yScale: scaleFor([...values, losses.batch]),
      yFormat: number,
      range: [-0.35, replayed.length - 0.65],
      marks: [
        {
          x: place(
            replayed.map((r) => r.momentum),
            current,
          ),
          label: `momentum ${beta(current)}`,
          kind: 'value',
        },
      ],
      shade: null,
      shared: false,
    };
  }, [losses, current]);
  return (
    <Panel
      title="Momentum, replayed"
      class="momentum-panel"
      hint="The inference loss this run would have now, had the momentum been another: measured, at the same weights."
      data={() => ({
        name: `${run}-momentum`,
        header: ['momentum', 'inference loss, replayed'],
        rows: losses.replayed.map(({ momentum, loss }) => [momentum, loss]),
      })}
      picture={() => {
        const canvas = chart.current?.canvas();
        if (canvas)
          savePicture(`${run}-momentum.png`, canvas, `Inference loss at other momenta · ${run}`, []);
      }}
    >
      {spec ? (
        <LineChartBox
          spec={spec}
          height={HEIGHT}
          handle={chart}
          label="Inference loss replayed at other momenta"
        />
      ) : (
        <p class="nothing">
          {losses.not_evaluated.replayed ??
            (layers.some(updates)
              ? 'The loss at other momenta is not measured yet.'
              : 'No layer updates its statistics, so another momentum would change nothing.')}
        </p>
      )}
      {layers.some(updates) && (
        <>
          <MomentumSlider value={current} usual={usual} />
          <WhatIf {...worst} />
        </>
      )}
    </Panel>
  );
}

function median(values: number[]): number {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  return sorted.length ? sorted[sorted.length >> 1] : 0.99;
}

/** Where a momentum lies between the replayed ones, by 1 - momentum on a log scale. */
function place(momenta: readonly number[], value: number): number {
  const depth = (b: number) => -Math.log(Math.max(1 - b, 1e-9));
  const after = momenta.findIndex((m) => m >= value);
  if (after === 0) return 0;
  if (after < 0) return momenta.length - 1;
  const [low, high] = [depth(momenta[after - 1]), depth(momenta[after])];
  return after - 1 + (depth(value) - low) / (high - low);
}
