import { useMemo } from 'preact/hooks';
import { routes } from '../api';
import { momentum, number } from '../format';
import { column } from '../frame';
import { useResource } from '../hooks';
import type { LayerReport } from '../wire';
import { tooltip } from '../words';

interface Props {
  run: string;
  layer: LayerReport;
  /** The selected momentum: the layer's own, or another one. */
  current: number;
  /** The layer's own. */
  usual: number;
  framework: string;
}

/** The layer's distance with other momentum values, measured on moving averages that the recorder keeps. */
export function ReplayedDistance({ run, layer, current, usual, framework }: Props) {
  const { value: frame } = useResource(useMemo(() => routes.layer(run, layer.index), [run, layer.index]));
  const step = column(frame, 'steps').at(-1) ?? null;
  const replayed = withOwn(layer, usual, column(frame, 'distance_rms').at(-1));
  const high = Math.max(...replayed.map(({ distance }) => distance).filter(Number.isFinite), 1e-9);
  if (!layer.replayed.length) return null;
  const closest = replayed.reduce((best, r) =>
    Math.abs(r.momentum - current) < Math.abs(best.momentum - current) ? r : best,
  );
  return (
    <table class="replayed">
      <caption>
        Distance at the last record{step !== null && ` (step ${number(step)})`} with other momentum values,
        measured
      </caption>
      <tbody>
        {replayed.map((r) => (
          <tr key={r.momentum} class={r === closest ? 'near' : ''}>
            <th scope="row">
              {momentum(r.momentum, framework)}
              {r.momentum === usual && <span class="unit"> (this run)</span>}
            </th>
            <td class="track">
              <i style={{ width: `${(100 * (r.distance || 0)) / high}%` }} />
            </td>
            <td class="right" data-tip={tooltip('distance')}>
              {number(r.distance)}
              <span class="unit"> sd</span>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** With the layer's own momentum, of the same record, in order: it is seldom one of the replayed ones. */
function withOwn({ replayed }: LayerReport, usual: number, distance = Number.NaN): LayerReport['replayed'] {
  if (Number.isNaN(distance) || replayed.some((r) => r.momentum === usual)) return replayed;
  return [...replayed, { momentum: usual, distance }].sort((a, b) => a.momentum - b.momentum);
}
