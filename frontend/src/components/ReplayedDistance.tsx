import { momentum, number } from '../format';
import type { LayerReport } from '../wire';
import { tooltip } from '../words';

interface Props {
  layer: LayerReport;
  current: number;
  framework: string;
}

/** The layer's distance with other momentum values, measured on moving averages that the recorder keeps. */
export function ReplayedDistance({ layer, current, framework }: Props) {
  const { replayed } = layer;
  const high = Math.max(...replayed.map(({ distance }) => distance).filter(Number.isFinite), 1e-9);
  if (!replayed.length) return null;
  const closest = replayed.reduce((best, r) =>
    Math.abs(r.momentum - current) < Math.abs(best.momentum - current) ? r : best,
  );
  return (
    <table class="replayed">
      <caption>Distance at the last record with other momentum values, measured</caption>
      <tbody>
        {replayed.map((r) => (
          <tr key={r.momentum} class={r === closest ? 'near' : ''}>
            <th scope="row">{momentum(r.momentum, framework)}</th>
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
